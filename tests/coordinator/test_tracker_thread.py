"""A look at the swarm that fails ends the coordinator only if none goes well any more."""

from __future__ import annotations

import threading

import pytest

from coordinator.tracker_thread import TrackerThread
from swarm.errors import OperationFailed


def test_a_look_that_fails_is_logged_and_made_again(caplog):
    stop, looked_again = threading.Event(), threading.Event()
    outcomes = iter([OverflowError("a number of somebody"), OverflowError("once more"), None])

    def look() -> None:
        if (error := next(outcomes, None)) is not None:
            raise error
        looked_again.set()

    tracking = TrackerThread(look, 0.001, stop)
    tracking.start()
    assert looked_again.wait(timeout=30)
    assert not stop.is_set()
    stop.set()
    tracking.join(timeout=30)
    tracking.require_sound()
    assert ["a number of somebody" in caplog.messages[0], "once more" in caplog.messages[1]] == [True, True]


def test_looks_that_never_succeed_end_the_coordinator_with_the_reason(monkeypatch):
    monkeypatch.setattr("coordinator.tracker_thread.PATIENCE_SECONDS", 0.0)
    stop = threading.Event()

    def look() -> None:
        raise OverflowError("a number of somebody")

    tracking = TrackerThread(look, 0.001, stop)
    tracking.start()
    assert stop.wait(timeout=30)
    tracking.join(timeout=30)
    with pytest.raises(OperationFailed, match=r"tracker has failed.*a number of somebody"):
        tracking.require_sound()
