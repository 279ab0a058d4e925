"""Simulated global steps against what can be worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.simulation.distributions import Distribution
from coordinator.simulation.options import Churn, SimulationOptions
from coordinator.simulation.report import SimulationReport
from coordinator.simulation.simulator import simulate
from coordinator.simulation.timings import LinearTime
from tests.coordinator.simulation.small_swarms import ONE_SECOND, run, small_spec


def assert_balanced(report: SimulationReport) -> None:
    books = report.samples
    assert books.computed == books.in_steps + sum(books.lost.values()) + books.pending


@pytest.mark.parametrize("peers", [2, 5])
def test_equal_peers_without_churn_step_when_the_arithmetic_says(peers):
    """1000 samples at 50/s each, up to one micro-batch of 10 more by everybody, one second of exchange."""
    report = run(peers=peers)
    exact = 1000 / (50 * peers) + 1.0
    assert exact <= report.step_seconds.median <= exact + 2 * 10 / 50
    assert report.goodput == report.samples.in_steps / report.samples.computed
    assert report.samples.lost == {}
    assert report.rounds.partial == report.rounds.failed == 0


def test_a_lone_peer_never_waits():
    report = run(peers=1)
    assert report.step_seconds.median == pytest.approx(20.0, abs=1e-3)
    assert report.time.waiting == 0.0
    assert report.rounds.total == 0
    assert report.global_steps == (300 - 5) // 20


def test_more_micro_batch_than_matchmaking_time_leaves_the_slow_out():
    """A micro-batch of the slow peer takes 20 s, the others wait 4 s for it."""
    spec = small_spec(micro_batch=100)
    slow = SimulationOptions(
        peers=8, hours=0.2, speeds=Distribution("choice", (5.0, 500.0)), bandwidth=None, seed=3
    )
    report = simulate(spec, slow)
    assert report.samples.lost["late"] > 0
    assert_balanced(report)


def test_an_exchange_longer_than_its_timeout_drives_peers_apart():
    long = ONE_SECOND.exchange_models | {"gradients": LinearTime(100.0, 0.0)}
    report = run(timings=type(ONE_SECOND)(ONE_SECOND.handshake_model, long), seconds=900.0)
    assert report.steps_apart == report.global_steps > 0
    assert report.rounds.failed > 0


def test_parameters_are_averaged_again_every_so_many_steps():
    models = {"gradients": LinearTime(1.0, 0.0), "state": LinearTime(3.0, 0.0)}
    timings = type(ONE_SECOND)(ONE_SECOND.handshake_model, models)
    every = run(timings=timings, spec=small_spec(state_every=1)).step_seconds.median
    rarely = run(timings=timings, spec=small_spec(state_every=1000)).step_seconds.median
    assert every == pytest.approx(rarely + 3.0, abs=0.3)


def test_a_state_that_takes_longer_than_a_step_keeps_newcomers_out():
    """The state is 3 * 4 bytes a value; at this bandwidth it takes minutes, a step takes 8 s."""
    slow = {"bandwidth": 0.002, "late": (30.0,), "seconds": 900.0}
    without = run(**slow, spec=small_spec(allreduce_timeout=600.0))
    assert without.recovery.visits_without_step == 1
    assert without.time.syncing > 0.1
    assert run(late=(30.0,)).recovery.visits_without_step == 0


def test_the_same_seed_gives_the_same_report_and_another_another():
    options = {"peers": 20, "hours": 0.5, "churn": Churn.POISSON, "mean_stay": 300.0}
    first, again, other = (
        simulate(small_spec(), SimulationOptions(**options, seed=seed)) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


@settings(max_examples=15)
@given(
    peers=st.integers(1, 12),
    target=st.integers(100, 3000),
    polite=st.floats(0, 1),
    mean_stay=st.floats(20, 2000),
    churn=st.sampled_from(Churn),
    seed=st.integers(0, 1000),
    speeds=st.sampled_from(["40", "1-400", "~30", "3,300"]),
)
def test_every_computed_sample_is_in_a_step_lost_or_pending(
    peers, target, polite, mean_stay, churn, seed, speeds
):
    options = SimulationOptions(
        peers=peers,
        hours=0.1,
        seed=seed,
        churn=churn,
        mean_stay=mean_stay,
        polite=polite,
        speeds=Distribution.parse(speeds, option="--speeds"),
    )
    report = simulate(small_spec(target), options)
    assert_balanced(report)
    assert 0.0 <= report.goodput <= 1.0
    time = report.time
    shares = [time.computing, time.averaging, time.waiting, time.syncing]
    assert sum(shares) == pytest.approx(1.0)
    assert all(share >= 0 for share in shares)
    assert report.peers_online.lowest <= report.peers_online.mean <= report.peers_online.highest


def test_hundreds_of_peers_follow_day_and_night():
    options = SimulationOptions(peers=200, hours=24.0, churn=Churn.DAY_NIGHT, bandwidth=None)
    report = simulate(small_spec(target=3_000_000), options)
    night, noon = report.timeline[0].peers_online, report.timeline[130].peers_online
    assert night > 1.5 * noon
    assert report.global_steps > 200
    assert_balanced(report)
