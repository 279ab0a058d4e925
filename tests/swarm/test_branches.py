"""Parts of a swarm that trained apart: who leads, who is left behind, who may give and take."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.lineage import Lineage
from swarm.clock import make_view
from swarm.states import PeerState
from tests.swarm.test_clock import NOW, SPEC, head, lease


def branch_lease(branch: str, **facts):
    return lease(**facts).model_copy(update={"branch": branch})


def view(head_record=None, **leases):
    return make_view(leases, {"coordinator": head_record or head()}, SPEC, NOW)


def test_only_the_same_branch_averages():
    seen = view(
        a=branch_lease("aa", samples=3), b=branch_lease("aa", samples=4), c=branch_lease("bb", samples=99)
    )
    assert seen.members_at(5, "aa") == ["a", "b"]
    assert seen.samples_at(5, "aa") == 7
    assert not seen.is_due(5, "aa", 50)


def test_the_branch_of_most_peers_leads_and_the_others_are_left_behind():
    seen = view(a=branch_lease("aa"), b=branch_lease("aa"), c=branch_lease("bb"))
    assert seen.leading_branch(5) == "aa"
    assert not seen.has_left_behind(5, "aa")
    assert seen.has_left_behind(5, "bb")


def test_the_head_record_decides_where_it_has_been():
    at_b = head().model_copy(update={"branch": "bb"})
    seen = view(at_b, a=branch_lease("aa"), b=branch_lease("aa"), c=branch_lease("bb"))
    assert seen.leading_branch(5) == "bb"
    assert seen.donors(5, exclude="a") == ["c", "coordinator"]


def test_a_higher_step_wins_whatever_the_branch():
    seen = view(a=branch_lease("aa"), b=branch_lease("aa"), c=branch_lease("bb", step=6))
    assert seen.has_left_behind(5, "aa")
    assert not seen.has_left_behind(6, "bb")
    assert seen.donors(5, exclude="a")[0] == "c"


@given(st.lists(st.sampled_from(["aa", "bb", "cc"]), min_size=2, max_size=8))
def test_everyone_agrees_on_who_leads_whoever_asks(branches):
    leases = {f"p{i}": branch_lease(branch) for i, branch in enumerate(branches)}
    shuffled = dict(reversed(list(leases.items())))
    leading = view(**leases).leading_branch(5)
    assert leading == view(**shuffled).leading_branch(5)
    assert branches.count(leading) == max(branches.count(branch) for branch in branches)


def test_heirs_are_peers_of_this_step_that_stay_and_can_be_reached_the_fastest_first():
    seen = view(
        slow=lease(speed=1.0),
        fast=lease(speed=9.0),
        behind=lease(step=4, speed=99.0),
        hidden=lease(speed=99.0, client_mode=True),
        going=lease(speed=99.0).model_copy(update={"departing": True}),
        gone=lease(speed=99.0, state=PeerState.LEAVING),
    )
    assert seen.heirs(5, "", exclude="nobody") == ["fast", "slow"]
    assert seen.heirs(5, "", exclude="fast") == ["slow"]


def test_when_a_step_comes_at_the_speed_of_those_who_compute():
    seen = view(a=lease(samples=40, speed=10.0), b=lease(samples=20, speed=5.0))
    assert seen.seconds_until_due(5, "", 90) == pytest.approx(2.0)
    assert seen.seconds_until_due(5, "", 60) == 0.0
    assert view(a=lease(samples=40)).seconds_until_due(5, "", 90) == float("inf")


def later(seconds: float, **leases):
    """What the coordinator sees so many seconds later; everyone has renewed their lease meanwhile."""
    return replace(view(**leases), now=NOW + seconds)


def test_a_peer_that_made_steps_of_its_own_out_of_sight_trained_apart():
    lineage = Lineage(out_of_sight=4.0)
    assert lineage.observe(later(0, a=branch_lease("aa"), b=branch_lease("aa"))) == []
    assert lineage.observe(later(5, a=branch_lease("a1", step=6))) == []
    assert lineage.observe(later(10, a=branch_lease("a2", step=7))) == []
    back = branch_lease("b1", step=8, state=PeerState.SYNCING)
    assert lineage.observe(later(15, a=branch_lease("a2", step=7), b=back)) == ["b"]
    together = {name: branch_lease("a3", step=9) for name in "ab"}
    assert lineage.observe(later(20, **together)) == ["b"], "shown for a while"
    assert lineage.observe(later(40, **together)) == []


def test_who_was_out_of_sight_for_weeks_is_a_newcomer():
    lineage = Lineage(out_of_sight=4.0)
    week = 7 * 24 * 3600.0
    lineage.observe(later(0, a=branch_lease("aa"), b=branch_lease("aa"), c=branch_lease("aa")))
    lineage.observe(later(week - 10, a=branch_lease("a1", step=6)))
    back = branch_lease("b1", step=7, state=PeerState.SYNCING)
    assert lineage.observe(later(week - 5, a=branch_lease("a1", step=6), b=back)) == ["b"]
    lineage.observe(later(week + 20, a=branch_lease("a1", step=6)))
    assert lineage.observe(later(week + 25, a=branch_lease("a1", step=6), c=back)) == []


def test_two_branches_at_one_step_are_a_split():
    lineage = Lineage(out_of_sight=4.0)
    seen = view(a=branch_lease("aa"), b=branch_lease("aa"), c=branch_lease("bb"))
    assert lineage.observe(seen) == ["c"]


@pytest.mark.parametrize("step", [5, 7])
def test_who_was_frozen_or_has_joined_again_did_not_train_apart(step):
    lineage = Lineage(out_of_sight=4.0)
    lineage.observe(later(0, a=branch_lease("aa"), b=branch_lease("aa")))
    lineage.observe(later(10, a=branch_lease("a2", step=7)))
    back = branch_lease("aa" if step == 5 else "a2", step=step)
    assert lineage.observe(later(15, a=branch_lease("a2", step=7), b=back)) == []


def test_a_coordinator_that_was_cut_off_itself_does_not_call_it_a_split():
    lineage = Lineage(out_of_sight=4.0)
    lineage.observe(later(0, a=branch_lease("aa"), b=branch_lease("aa")))
    assert lineage.observe(later(60, a=branch_lease("a9", step=9), b=branch_lease("a9", step=9))) == []


def test_a_lost_coordinators_last_word_does_not_hold_up_a_run_that_another_one_serves():
    lost = head(step=100).model_copy(update={"issued": NOW - 60, "expires": NOW + 3000})
    serving = head(step=98)
    seen = make_view({}, {"lost": lost, "serving": serving}, SPEC, NOW)
    assert seen.head == serving
    assert make_view({}, {"lost": lost}, SPEC, NOW).head == lost


def test_a_state_that_nobody_can_fetch_leads_nobody():
    seen = view(hidden=lease(step=6, client_mode=True), a=lease(step=5))
    assert seen.newest_step == 5
    assert view(hidden=lease(step=6, client_mode=True)).newest_step == 6
    apart = view(hidden=branch_lease("zz", client_mode=True), a=branch_lease("aa"))
    assert apart.leading_branch(5) == "aa"
