"""Parts of a swarm that trained apart: who leads, who is left behind, who may give and take."""

from __future__ import annotations

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


def test_a_lineage_remembers_who_was_where_and_finds_those_who_trained_apart():
    lineage = Lineage()
    assert lineage.observe(view(a=branch_lease("aa"), b=branch_lease("aa"))) == []
    # the coordinator sees its own side go on, then the other side at a step that it knows otherwise
    assert lineage.observe(view(a=branch_lease("a1", step=6))) == []
    assert lineage.observe(view(a=branch_lease("a2", step=7), b=branch_lease("b1", step=6))) == ["b"]
    assert lineage.observe(view(a=branch_lease("a2", step=7), b=branch_lease("a2", step=7))) == []
