"""A node of several ranks is one peer: joins, steps, leaves, breaks and comes back as one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from peer.node.family import is_alive
from tests.scenarios.node_on_failing_devices import DEVICES_LEFT
from tests.scenarios.swarm_under_test import SwarmUnderTest, family, kill_main, wait_for_leftovers

# several processes import and compute on few cores
DEADLINE = 400.0
pytestmark = pytest.mark.timeout(900)
CLEANERS = (b"resource_tracker", b"torch_shm_manager")


@pytest.fixture
def start(make_swarm, make_spec):
    """A coordinator and a node of so many ranks that is training."""

    def start(
        ranks: int, *options: str, program: str = "peer.cli", **sections: dict
    ) -> tuple[SwarmUnderTest, object]:
        swarm = make_swarm(make_spec(leases={"period": 0.5, "expiration": 8.0}, **sections))
        swarm.start_coordinator(wait=False)
        swarm.wait_for((swarm.run_dir / "join.txt").exists, "the join line", deadline=DEADLINE)
        node = swarm.start_peer("node", "--ranks", str(ranks), *options, program=program)
        swarm.wait_for(lambda: len(swarm.steps("node")) >= 2, "two steps", alive=node, deadline=DEADLINE)
        return swarm, node

    return start


@pytest.mark.heavy
@pytest.mark.parametrize("overlap", [False, True])
def test_a_node_is_one_peer_beside_a_peer_alone_and_leaves_politely(start, overlap):
    swarm, node = start(2, "--grace", "20", averaging={"overlap": overlap})
    solo = swarm.start_peer("solo")
    swarm.wait_for(
        lambda: any(event["group"] == 2 for event in swarm.events("node", "step")),
        "a step of both",
        alive=solo,
        deadline=DEADLINE,
    )
    swarm.wait_for(lambda: len(swarm.status()["peers"]) == 2, "both in the status")
    ranks = {peer["name"]: peer["ranks"] for peer in swarm.status()["peers"]}
    assert ranks == {"node": 2, "solo": 1}
    swarm.remember_processes()
    started = time.monotonic()
    node.send_signal(signal.SIGTERM)
    assert node.wait(30) == 0
    assert time.monotonic() - started < 20
    (left,) = swarm.events("node", "left")
    assert left["reason"] == "told to go by SIGTERM"
    handed = sum(event["samples"] for event in swarm.events("node", "handed_over"))
    # a machine so busy that it looks suspended makes the node fetch the state again, and throw samples away
    reloaded = bool(swarm.events("node", "reloading"))
    assert reloaded or left["samples_contributed"] + handed == left["samples_computed"]
    before = swarm.steps("solo")[-1]
    swarm.wait_for(lambda: swarm.steps("solo")[-1] > before, "a step of the other", alive=solo)


@pytest.mark.heavy
def test_nothing_outlives_a_killed_supervisor(start):
    swarm, node = start(2)
    members = family(node.pid)
    kill_main(node)
    deadline = time.monotonic() + 2.0
    while left := [command(pid) for pid in members if is_alive(pid)]:
        # Python's and torch's cleaners of shared memory end when they have cleaned up after the others
        left = [words for words in left if not any(cleaner in words for cleaner in CLEANERS)]
        if not left:
            break
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    swarm.end()
    assert wait_for_leftovers(swarm) == []


@pytest.mark.heavy
@pytest.mark.parametrize("left", [3, 2], ids=["the device is still there", "the device is gone"])
def test_a_killed_rank_takes_the_node_down_and_what_is_left_starts_again(start, tmp_path, monkeypatch, left):
    devices_left = tmp_path / "devices"
    monkeypatch.setenv(DEVICES_LEFT, str(devices_left))
    swarm, node = start(3, program="tests.scenarios.node_on_failing_devices")
    ranks = ranks_of(node.pid)
    assert len(ranks) == 3
    devices_left.write_text(str(left))
    reached = swarm.steps("node")[-1]
    os.kill(ranks[-1], signal.SIGKILL)
    swarm.wait_for(
        lambda: len(swarm.events("node", "joined")) == 2, "a second life", alive=node, deadline=DEADLINE
    )
    swarm.wait_for(lambda: len(swarm.events("node", "synced")) == 2, "its state", deadline=DEADLINE)
    (first_end,) = swarm.events("node", "left")
    assert "ended unexpectedly" in first_end["reason"]
    assert swarm.events("node", "synced")[-1]["global_step"] >= reached
    reached = swarm.steps("node")[-1]
    swarm.wait_for(lambda: swarm.steps("node")[-1] > reached + 1, "more steps", alive=node, deadline=DEADLINE)
    second = ranks_of(node.pid)
    assert len(second) == left
    assert not set(ranks) & set(second)
    swarm.wait_for(
        lambda: [peer["ranks"] for peer in swarm.status()["peers"]] == [left], "them in the status"
    )
    said = [event["text"] for event in swarm.events("node", "message")]
    assert any("a rank has ended unexpectedly" in text for text in said)
    assert any("only 2 of 3 devices" in text for text in said) == (left == 2)


@pytest.mark.heavy
def test_two_nodes_share_a_cache_folder_and_a_second_signal_ends_one_at_once(start):
    swarm, node = start(2)
    other = swarm.start_peer("other", "--ranks", "2")
    swarm.wait_for(
        lambda: any(event["group"] == 2 for event in swarm.events("other", "step")),
        "a step of both",
        alive=other,
        deadline=DEADLINE,
    )
    members = family(node.pid)
    node.send_signal(signal.SIGTERM)
    swarm.wait_for(lambda: swarm.events("node", "leaving"), "the first signal to be heard", deadline=DEADLINE)
    if node.poll() is None:
        node.send_signal(signal.SIGTERM)
    assert node.wait(10) in (0, 128 + signal.SIGTERM)
    before = swarm.steps("other")[-1]
    swarm.wait_for(
        lambda: swarm.steps("other")[-1] > before, "a step of the other", alive=other, deadline=DEADLINE
    )
    left = [command(pid) for pid in members if is_alive(pid)]
    assert [words for words in left if not any(cleaner in words for cleaner in CLEANERS)] == []


def ranks_of(supervisor: int) -> list[int]:
    """The processes of a node's ranks, in their order: what the supervisor's fork server has forked."""
    (server,) = (pid for pid in children(supervisor) if b"forkserver" in command(pid))
    return sorted(children(server))


def children(pid: int) -> list[int]:
    """Direct children of a process."""
    listings = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for listing in listings for child in listing.read_text().split()]


def command(pid: int) -> bytes:
    """What a process was started as; empty if it has just ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
