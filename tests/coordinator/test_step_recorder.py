"""From peers' records to the history of global steps: rounds, what failed before them and why, and their traffic."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.history import History
from coordinator.step_recorder import StepRecorder
from coordinator.totals import Totals
from coordinator.tracker import Tracker
from swarm.records import Lease, PeerRecord
from swarm.spec import RunSpec
from swarm.states import PeerState

SPEC = RunSpec(name="steps", averaging={"state_every": 2, "gradient_compression": "8bit"})
SHAPES = ((100_000,), (10,))


class Board:
    """What the DHT would give."""

    def __init__(self) -> None:
        self.records: dict[type, dict] = {}

    def say(self, name: str, step: int, *, record: bool = True, **facts: object) -> None:
        now = time.time()
        life = {"run_id": SPEC.run_id, "issued": now, "expires": now + 60, "state": PeerState.TRAINING}
        self.records.setdefault(Lease, {})[name] = Lease(**life, step=step, samples=0)
        if record:
            fields = {"name": name, "version": "1", "device": "Tesla T4", "global_step": step, **facts}
            self.records.setdefault(PeerRecord, {})[name] = PeerRecord(**life, **fields)

    def ask(self, kind: type) -> Callable[[], dict]:
        return lambda: self.records.get(kind, {})


class Log:
    def __init__(self) -> None:
        self.steps: list[int] = []

    def write(self, metrics: dict[str, float], global_step: int, now: float) -> None:
        self.steps.append(global_step)

    def close(self) -> None: ...


class Watched:
    """A tracker over a board, with its history."""

    def __init__(self, folder: Path) -> None:
        self.board, self.log = Board(), Log()
        self.history = History(folder / "history.sqlite")
        self.tracker = Tracker(self.board, SPEC, Totals())
        self.recorder = StepRecorder(self.history, self.log, self.tracker, SHAPES)

    def look(self) -> dict[str, list]:
        status = self.tracker.poll()
        self.history.record_status(status, status.generated_at)
        self.recorder.record(status)
        return self.history.steps(0.0, time.time() + 60, points=5000)


@pytest.fixture
def watched(tmp_path) -> Iterator[Watched]:
    watched = Watched(tmp_path)
    yield watched
    watched.history.close()


def test_a_step_is_recorded_once_and_its_round_when_it_is_heard_of(watched):
    watched.board.say("a", 1, record=False)
    watched.board.say("b", 1, record=False)
    assert watched.look()["group_size"] == [0]
    for name in ("a", "b"):
        watched.board.say(name, 1, round_group=2, round_received=0.5, round_seconds=1.5)
    steps = watched.look()
    assert (steps["global_step"], steps["group_size"], steps["seconds"]) == ([1], [2], [1.5])
    assert (steps["received_fraction"], steps["partial_rounds"]) == ([0.5], [1])
    assert watched.log.steps == [1]


def test_samples_are_counted_when_only_the_lease_is_renewed(watched):
    watched.board.say("a", 1, samples_computed=30)
    watched.look()
    leases = watched.board.records[Lease]
    leases["a"] = leases["a"].model_copy(update={"issued": time.time(), "samples_computed": 50})
    watched.look()
    watched.look()
    assert watched.tracker.totals.all.computed == 50


def test_traffic_follows_from_the_group_and_the_codecs(watched):
    gradients, parameters = (100_000 + 1024) + 20, 4 * 100_010
    watched.board.say("a", 1, round_group=3)
    assert watched.look()["bytes"] == [2 * 2 * gradients]
    watched.board.say("a", 2, round_group=1)
    watched.look()
    watched.board.say("a", 4, round_group=2)
    assert sum(watched.look()["bytes"]) == 4 * gradients + 2 * (gradients + parameters)


def test_rounds_that_failed_are_told_with_the_reason_that_most_peers_gave(watched):
    for name in "abc":
        watched.board.say(name, 1, round_group=3, rounds_failed=5)
    watched.look()
    for name, failed, words in (("a", 6, "no group"), ("b", 7, "no group"), ("c", 6, "a timeout")):
        watched.board.say(name, 1, round_group=3, rounds_failed=failed, last_error=words)
    watched.look()
    for name, failed in (("a", 6), ("b", 7), ("c", 6)):
        watched.board.say(name, 2, round_group=3, rounds_failed=failed)
    watched.look()
    (problem,) = watched.history.round_problems(0.0, time.time() + 60)
    assert (problem["global_step"], problem["failed_rounds"], problem["reason"]) == (2, 2, "no group")
    for name in "abc":
        watched.board.say(name, 3, round_group=3, rounds_failed=0)
    watched.look()
    assert len(watched.history.round_problems(0.0, time.time() + 60)) == 1


def test_a_gpu_is_told_by_its_name_and_counted(watched):
    watched.board.say("a", 1)
    watched.look()
    (peer,) = watched.tracker.status.peers
    assert (peer.device, peer.hardware) == ("cuda", "Tesla T4")
    assert watched.history.counts(0.0)["gpus"] == [1]


def test_more_samples_than_a_database_can_hold_are_recorded_as_what_it_holds(watched):
    for name in "abc":
        watched.board.say(name, 1, record=False)
        leases = watched.board.records[Lease]
        leases[name] = leases[name].model_copy(update={"samples": 2**62})
    watched.look()
    assert watched.history.counts(0.0)["samples_accumulated"] == [2**63 - 1]
