"""Peers that fall silent and come back: frozen, cut off, or half of the swarm apart from the other half."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from tests.scenarios.network import Network
from tests.scenarios.swarm_under_test import signal_family


@pytest.fixture
def network() -> Iterator[Network]:
    if not Network.available():
        pytest.skip("needs network namespaces: Linux, root and iproute2")
    with contextlib.closing(Network(hosts=4)) as network:
        yield network


@pytest.mark.heavy
def test_a_frozen_peer_stops_nobody_and_reloads_before_it_takes_part_again(make_swarm, make_spec):
    swarm = make_swarm(make_spec())
    swarm.start_coordinator()
    first, second = swarm.start_peer("first"), swarm.start_peer("second")
    swarm.wait_for(lambda: step_of_group(swarm, "first", 2), "a step of two", alive=first)
    signal_family(second, signal.SIGSTOP)
    try:
        before = swarm.steps("first")[-1]
        swarm.wait_for(lambda: swarm.steps("first")[-1] >= before + 4, "steps without it", alive=first)
    finally:
        signal_family(second, signal.SIGCONT)
    swarm.wait_for(lambda: swarm.events("second", "reloading"), "the frozen peer to notice", alive=second)
    frozen_at = swarm.events("second", "reloading")[0]["global_step"]
    resumed_at = swarm.steps("first")[-1]
    swarm.wait_for(
        lambda: step_of_group(swarm, "second", 2, after=resumed_at), "a step of two again", alive=second
    )
    # what it had when it was frozen never became a step: the first one after that is from a state it fetched
    synced = [event["global_step"] for event in swarm.events("second", "synced")]
    assert synced[-1] > frozen_at
    assert not [step for step in swarm.steps("second") if frozen_at < step <= synced[1]]


@pytest.mark.heavy
def test_a_split_swarm_heals_by_joining_the_side_that_is_further(make_swarm, make_spec, network):
    swarm = make_swarm(make_spec(), network=network)
    swarm.start_coordinator(host=0)
    near, far = swarm.start_peer("near", host=2), swarm.start_peer("far", host=1)
    swarm.wait_for(lambda: step_of_group(swarm, "near", 2), "a step of two", alive=near)
    network.split()
    alone_since = swarm.steps("near")[-1]
    swarm.wait_for(
        lambda: (
            step_of_group(swarm, "near", 1, after=alone_since)
            and step_of_group(swarm, "far", 1, after=alone_since)
        ),
        "both sides to go on alone",
        alive=near,
    )
    network.heal()
    healed_at = max(swarm.steps("near")[-1], swarm.steps("far")[-1])
    swarm.wait_for(
        lambda: (
            step_of_group(swarm, "near", 2, after=healed_at)
            and step_of_group(swarm, "far", 2, after=healed_at)
        ),
        "a step of two again",
        alive=far,
    )
    reloads = [event for name in ("near", "far") for event in swarm.events(name, "reloading")]
    assert {event["reason"] for event in reloads} <= {"fell behind", "trained apart from the swarm"}
    assert reloads


def step_of_group(swarm, name: str, group: int, after: int = 0) -> bool:
    steps = swarm.events(name, "step")
    return any(event["group"] == group and event["global_step"] > after for event in steps)
