"""What a leaving peer does with its samples, by what it sees of the others."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from peer import departure
from peer.departure import LOOKS_UNTIL_ALONE, Departure
from swarm.clock import SwarmView
from swarm.identity import Identity
from swarm.records import Lease
from swarm.settings import RunSettings
from swarm.spec import RunSpec
from swarm.states import PeerState

SPEC = RunSpec(name="small")
OWN, HEIR = Identity.generate().peer_id, Identity.generate().peer_id


def lease() -> Lease:
    now = time.time()
    return Lease(
        run_id=SPEC.run_id, issued=now, expires=now + 20, state=PeerState.TRAINING, step=0, samples=4
    )


def view_of(*peers: str) -> SwarmView:
    return SwarmView(now=time.time(), leases={peer: lease() for peer in peers}, head=None, coordinators=())


class Presence:
    """Sees what it is told to see, the last of it again and again."""

    peer_id = OWN

    def __init__(self, *views: SwarmView):
        self.views, self.looks = views, 0
        self.activity = SimpleNamespace(round_seconds=0.0, samples_handed_over=0)

    def refresh(self) -> SwarmView:
        self.looks += 1
        return self.views[min(self.looks, len(self.views)) - 1]

    def update(self, **_changes: object) -> None:
        pass


def leave(presence: Presence, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is said of the samples."""
    said: list[str] = []
    accumulator = SimpleNamespace(samples=4)

    def hand_over(*_given: object, **_named: object) -> str:
        accumulator.samples = 0
        return HEIR

    monkeypatch.setattr(departure, "hand_over", hand_over)
    settings = SimpleNamespace(is_finished_at=lambda _step: False, at=lambda _step: RunSettings.of(SPEC))
    parts: dict[str, Any] = {
        "spec": SPEC,
        "state": SimpleNamespace(step=0, branch="", settings=settings),
        "accumulator": accumulator,
        "buffers": [],
        "presence": presence,
        "desk": SimpleNamespace(close=lambda: None),
        "service": None,
        "suspension": SimpleNamespace(seconds=0.0),
        "grace": SimpleNamespace(remaining=15.0),
        "reporter": SimpleNamespace(
            handed_over=lambda samples, heir: said.append(f"{samples} to {heir}"), message=said.append
        ),
    }
    Departure(**parts).leave(lambda: None, lambda: None)
    return said


def test_samples_are_handed_over_although_the_first_looks_miss_everybody(monkeypatch):
    missed = [view_of(OWN)] * 2
    assert leave(Presence(*missed, view_of(OWN, HEIR)), monkeypatch) == [f"4 to {HEIR}"]


def test_a_peer_that_is_alone_does_not_look_for_ever(monkeypatch):
    presence = Presence(view_of(OWN))
    assert leave(presence, monkeypatch) == ["4 samples lost: nobody could take over"]
    assert presence.looks <= LOOKS_UNTIL_ALONE + 1
