"""The clock of a run as a pure function of leases and head records."""

from __future__ import annotations

import math

import pytest

from swarm.clock import SwarmView, make_view
from swarm.records import MAX_COUNT, MAX_LIFETIME_SECONDS, MAX_SPEED, HeadRecord, Lease
from swarm.spec import RunSpec
from swarm.states import PeerState

SPEC = RunSpec(name="x", checkpoints={"every_steps": 10, "follow_every_steps": 2})
NOW = 1_000_000.0


def lease(
    step=5, samples=0, state=PeerState.TRAINING, age=0.0, life=4.0, speed=0.0, client_mode=False
) -> Lease:
    return Lease(
        run_id=SPEC.run_id,
        issued=NOW - age,
        expires=NOW - age + life,
        state=state,
        step=step,
        samples=samples,
        samples_per_second=speed,
        client_mode=client_mode,
    )


def head(step=5, age=0.0) -> HeadRecord:
    return HeadRecord(
        run_id=SPEC.run_id, issued=NOW, expires=NOW + 60, step=step, reached=NOW - age, state_digest="0" * 64
    )


def view(head_record=None, **leases) -> SwarmView:
    return make_view(leases, {"coordinator": head_record or head()}, SPEC, NOW)


def test_the_dead_do_not_count():
    seen = view(alive=lease(samples=30), dead=lease(samples=1000, age=5.0))
    assert seen.members_at(5, "") == ["alive"]
    assert seen.samples_at(5, "") == 30


def test_samples_of_other_steps_do_not_count():
    seen = view(a=lease(step=5, samples=30), b=lease(step=4, samples=500))
    assert seen.samples_at(5, "") == 30
    assert not seen.is_due(5, "", target_batch_size=100)


def test_a_step_is_due_when_the_samples_are_there():
    seen = view(a=lease(samples=60), b=lease(samples=40))
    assert seen.is_due(5, "", target_batch_size=100)
    assert not seen.is_due(5, "", target_batch_size=101)


def test_a_step_is_due_when_somebody_has_begun_to_average():
    assert view(a=lease(samples=1), b=lease(samples=1, state=PeerState.AVERAGING)).is_due(
        5, "", target_batch_size=1000
    )


def test_re_averaging_parameters_without_samples_does_not_make_the_next_step_due():
    assert not view(a=lease(samples=1), b=lease(state=PeerState.AVERAGING)).is_due(
        5, "", target_batch_size=1000
    )


def test_a_step_is_near_by_each_peers_speed_but_due_by_real_counts_only():
    seen = view(a=lease(samples=10, speed=20.0, age=1.5))
    assert seen.is_near(5, "", target_batch_size=40)
    assert not seen.is_near(5, "", target_batch_size=41)
    assert not seen.is_due(5, "", target_batch_size=40)
    assert seen.samples_at(5, "") == 10


def test_the_greatest_claim_that_a_lease_can_make_is_computed_with():
    greatest = lease(samples=MAX_COUNT, speed=MAX_SPEED, age=3.0, life=MAX_LIFETIME_SECONDS)
    seen = view(liar=greatest, honest=lease(samples=1))
    assert seen.is_near(5, "", 40)
    assert seen.seconds_until_due(5, "", 40) == 0.0
    assert math.isfinite(seen.weights_at(5, "", 40)["liar"])


def test_who_averages_is_not_projected():
    assert not view(a=lease(samples=10, speed=20.0, age=1.5, state=PeerState.AVERAGING)).is_near(5, "", 11)


@pytest.mark.parametrize(
    "state", [PeerState.JOINING, PeerState.SYNCING, PeerState.LEAVING, PeerState.STALLED]
)
def test_only_those_who_train_take_part(state):
    seen = view(a=lease(samples=100, state=state, step=9))
    assert seen.members_at(9, "") == []
    assert seen.newest_step == 5


def test_a_forged_step_far_beyond_the_head_is_ignored():
    seen = view(head(age=10.0), honest=lease(step=7), forger=lease(step=10_000))
    assert seen.newest_step == 7
    assert seen.donors(min_step=5, exclude="me") == ["honest", "coordinator"]


def test_an_old_head_lets_honest_peers_run_ahead():
    seen = view(head(step=5, age=500.0), honest=lease(step=300))
    assert seen.newest_step == 300


def test_donors_are_the_furthest_first_then_coordinators_and_never_clients_or_oneself():
    seen = view(a=lease(step=6), b=lease(step=7), me=lease(step=7), c=lease(step=7, client_mode=True))
    assert seen.donors(min_step=5, exclude="me") == ["b", "a", "coordinator"]


def test_without_a_head_nobody_knows_the_run():
    seen = make_view({"a": lease()}, {}, SPEC, NOW)
    assert seen.head is None
    assert seen.coordinators == ()
