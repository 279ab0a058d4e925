"""The thread that keeps the run's copies: whatever its keeper does, it says so and goes on."""

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator import keeper_thread
from coordinator.events import Event
from coordinator.keeper_thread import KeeperThread
from swarm.errors import OperationFailed

DEADLINE = 20.0


class KeeperOfFaults:
    """Does what it is told next; afterwards nothing."""

    def __init__(self, *faults: Exception) -> None:
        self.worker = SimpleNamespace(close=lambda: None)
        self.last_checkpoint = None
        self.looks: queue.Queue[None] = queue.Queue()
        self._faults = list(faults)

    def follow(self, _view: Any, _loss: Any) -> None:
        self.looks.put(None)
        if self._faults:
            raise self._faults.pop(0)

    def checkpoint_now(self, _view: Any, _loss: Any) -> Any:
        raise ZeroDivisionError("float division by zero")


@contextmanager
def following(keeper: KeeperOfFaults, announce: Callable[[Event], None]) -> Iterator[KeeperThread]:
    tracker = SimpleNamespace(view=None, status=SimpleNamespace(train_loss=None))
    thread = KeeperThread(keeper, tracker, announce, lambda _checkpoint: None, 0.01)  # type: ignore[arg-type]
    thread.start()
    try:
        yield thread
    finally:
        thread.stop(DEADLINE)


def test_faults_are_events_and_the_thread_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_thread, "PAUSE_SECONDS", 0.01)
    told: queue.Queue[Event] = queue.Queue()
    keeper = KeeperOfFaults(OperationFailed("the disk is full"), KeyError("exp_avg"))
    with following(keeper, told.put):
        foreseen, unforeseen = (told.get(timeout=DEADLINE) for _ in range(2))
        assert (foreseen.kind, foreseen.sentence) == ("checkpoint_failed", "the disk is full")
        assert unforeseen.data == {"reason": "KeyError: 'exp_avg'"}
        for _ in range(4):
            keeper.looks.get(timeout=DEADLINE)


def test_a_wish_hears_of_its_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_thread, "PAUSE_SECONDS", 0.01)
    with following(KeeperOfFaults(), lambda _event: None) as thread:
        for _ in range(2):  # the thread is still there for the second
            with pytest.raises(OperationFailed, match="no checkpoint: float division by zero"):
                thread.request_checkpoint().result(timeout=DEADLINE)


def test_a_pause_after_a_fault_does_not_delay_the_end() -> None:
    told: queue.Queue[Event] = queue.Queue()
    with following(KeeperOfFaults(KeyError("exp_avg")), told.put) as thread:
        told.get(timeout=DEADLINE)
        thread.stop(DEADLINE)
        assert "keeper" not in {each.name for each in threading.enumerate()}
