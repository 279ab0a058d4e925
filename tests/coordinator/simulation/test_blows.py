"""What killing, leaving, freezing and cutting cost in the simulation; timeouts as in the spec of `small_swarms`."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.simulation.options import Churn, SimulationOptions
from coordinator.simulation.report import SimulationReport
from coordinator.simulation.simulator import simulate
from tests.coordinator.simulation.small_swarms import run, small_spec

# three peers: steps begin at 5 s and take 6.67 s of computing and 1 s of exchange: 12.8, 20.7, 28.5, …
STEP = 7.8


def goodput(mean_stay: float, polite: float) -> float:
    """Over several seeds, because one storm is chance."""
    return statistics.mean(
        simulate(
            small_spec(),
            SimulationOptions(
                peers=10, hours=0.5, churn=Churn.POISSON, mean_stay=mean_stay, polite=polite, seed=seed
            ),
        ).goodput
        for seed in range(2)
    )


def test_more_kills_cost_more():
    rarely, often = goodput(3000.0, 0.0), goodput(200.0, 0.0)
    assert often < rarely < 1.0


def test_leaving_politely_costs_less_than_being_killed():
    polite, killed = goodput(200.0, 1.0), goodput(200.0, 0.0)
    assert polite > killed
    assert polite > 0.95


def test_a_kill_while_computing_costs_the_victims_samples_and_one_matchmaking_time():
    """The others believe in it until the lease ends, 3 s later; killed just before the step is due."""
    report = run((18.5, "kill", 2), seconds=22.0 + STEP)
    assert 250 <= report.samples.lost["killed"] <= 350
    assert report.rounds.failed == 0
    calm = run(seconds=22.0 + STEP)
    delay = report.recovery.after_kill_worst - (20.7 - 18.5)
    assert 0 < delay < 4.0 + 1.0
    assert calm.samples.lost == {}


def test_a_kill_in_the_exchange_makes_it_partial_and_one_chunk_timeout_longer():
    calm = run(seconds=13.5)
    assert calm.global_steps == 1
    report = run((12.5, "kill", 2), seconds=200.0)
    # gradients are partial for the two survivors; then re-averaging waits for the dead
    assert report.rounds.partial == 2
    assert report.recovery.after_kill_worst == pytest.approx(7.0, abs=0.2)


def test_a_survivor_goes_on_alone():
    report = run((14.0, "kill", 1), peers=2, seconds=200.0)
    assert report.global_steps > 5
    assert report.recovery.after_kill_worst < 1000 / 50 + 4.0 + 2.0


def test_a_peer_told_to_go_hands_over_or_stays_for_the_step():
    report = run((18.0, "leave", 2), (38.0, "leave", 1), seconds=120.0)
    assert report.samples.lost == {}
    assert report.peers_online.lowest == 1


def test_the_last_peer_has_nobody_to_hand_over_to():
    spec = small_spec(target=5000)
    report = run((40.0, "leave", 0), peers=1, spec=spec, seconds=80.0)
    assert report.samples.lost == {"no receiver": 1750}


def test_a_short_freeze_costs_nothing_and_a_long_one_the_samples_in_hand():
    short = run((15.0, "freeze", 2), (17.0, "resume", 2))
    assert short.samples.lost == {}
    long = run((15.0, "freeze", 2), (60.0, "resume", 2))
    assert set(long.samples.lost) == {"suspended"}
    assert long.recovery.visits_without_step == 0


def test_what_is_computed_behind_a_cut_counts_for_nobody():
    report = run((15.0, "cut", 2), (60.0, "heal", 2))
    assert report.samples.lost["suspended"] > 45 * 50 * 0.9


def test_a_killed_peer_that_starts_again_contributes_again():
    report = run((50.0, "kill", 2), (58.0, "start", 2), seconds=200.0)
    assert report.recovery.visits == 4
    assert report.recovery.visits_without_step == 0


@settings(max_examples=40)
@given(
    blows=st.lists(
        st.tuples(
            st.floats(0, 300),
            st.sampled_from(["start", "kill", "leave", "freeze", "resume", "cut", "heal"]),
            st.integers(0, 3),
        ),
        max_size=40,
    ),
    seed=st.integers(0, 100),
    state_every=st.integers(1, 3),
)
def test_no_order_of_blows_breaks_the_books(blows, seed, state_every):
    spec = small_spec(state_every=state_every)
    report: SimulationReport = run(*blows, peers=4, seconds=320.0, seed=seed, bandwidth=0.5, spec=spec)
    books = report.samples
    assert books.computed == books.in_steps + sum(books.lost.values()) + books.pending
    assert min(books.computed, books.in_steps, books.pending, *books.lost.values(), 0) == 0
    assert report.peers_online.lowest >= 0
    assert report.peers_online.highest <= 4
