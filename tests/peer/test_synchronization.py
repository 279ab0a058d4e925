"""From whom a newcomer takes its state, and whom it does not believe."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from peer import synchronization
from peer.synchronization import Synchronizer
from swarm.clock import SwarmView
from swarm.identity import Identity
from swarm.records import HeadRecord, Lease
from swarm.snapshot import Snapshot
from swarm.spec import ModelSpec, RunSpec
from swarm.state_sharing import StateBusy, StateUnavailable, StateUnfit
from swarm.states import PeerState
from swarm.training_state import TrainingState, build_model

SPEC = RunSpec(
    name="small",
    model=ModelSpec(hidden_size=8, intermediate_size=16, num_attention_heads=2, embedding_size=8),
)
LIAR, HONEST = Identity.generate().peer_id, Identity.generate().peer_id


@pytest.fixture
def state() -> TrainingState:
    return TrainingState(SPEC, build_model(SPEC, vocab_size=32, pad_token_id=0))


class Averager:
    """Gives out states; a liar among several donors spoils them all."""

    def __init__(self, steps: dict[str, int], state: TrainingState):
        self.steps, self.state, self.asked = steps, state, list[tuple[str, ...]]()

    def download_state(self, *donors: str, layouts, timeout: float) -> Snapshot:
        self.asked.append(donors)
        tensors = [torch.full_like(tensor, 0.25) for tensor in self.state.snapshot().tensors]
        return Snapshot(max(self.steps[donor] for donor in donors), "", tensors)


class Silent(Averager):
    """The liar hands out nothing."""

    def download_state(self, *donors: str, layouts, timeout: float) -> Snapshot:
        if LIAR in donors:
            self.asked.append(donors)
            raise StateUnavailable("the donor has no state to give")
        return super().download_state(*donors, layouts=layouts, timeout=timeout)


class Unfit(Averager):
    """The liar hands out something else."""

    def download_state(self, *donors: str, layouts, timeout: float) -> Snapshot:
        if donors == (LIAR,):
            self.asked.append(donors)
            raise StateUnfit("tensor 0 has values that are not finite")
        return super().download_state(*donors, layouts=layouts, timeout=timeout)


class Busy(Averager):
    """The donor that is ahead serves others, so many times."""

    times = 2

    def download_state(self, *donors: str, layouts, timeout: float) -> Snapshot:
        if LIAR in donors and self.times:
            self.times -= 1
            self.asked.append(donors)
            raise StateBusy("the donor is serving others")
        return super().download_state(*donors, layouts=layouts, timeout=timeout)


def presence_of(view: SwarmView) -> SimpleNamespace:
    return SimpleNamespace(
        disregard=lambda *_given: None,
        view=view,
        peer_id=Identity.generate().peer_id,
        refresh=lambda: view,
        require_present=lambda: None,
        update=lambda **_changes: None,
    )


def view_of(liar_step: int, honest_step: int) -> SwarmView:
    now = time.time()
    told = {"run_id": SPEC.run_id, "issued": now, "expires": now + 20}
    leases = {
        peer: Lease(**told, state=PeerState.TRAINING, samples=0, step=step)
        for peer, step in ((LIAR, liar_step), (HONEST, honest_step))
    }
    head = HeadRecord(**told, step=honest_step, reached=now, state_digest="0" * 64, branch="")
    return SwarmView(now=now, leases=leases, head=head, coordinators=())


def test_who_claims_a_step_and_does_not_hand_it_out_is_believed_no_more(state):
    presence, disregarded = presence_of(view_of(liar_step=8, honest_step=7)), list[str]()
    presence.disregard = lambda peer, _seconds: disregarded.append(peer)
    synchronizer = Synchronizer(state, Silent({HONEST: 7}, state), presence, threading.Event(), None)  # type: ignore[arg-type]
    for expected in ([], [LIAR]):
        synced = synchronizer.synchronize(force=True)
        assert synced is not None
        assert (synced.global_step, synced.donor) == (7, HONEST)
        assert disregarded == expected


def test_who_is_a_step_ahead_and_hands_it_out_is_believed(state):
    presence, disregarded = presence_of(view_of(liar_step=8, honest_step=7)), list[str]()
    presence.disregard = lambda peer, _seconds: disregarded.append(peer)
    averager = Averager({LIAR: 8, HONEST: 7}, state)
    synchronizer = Synchronizer(state, averager, presence, threading.Event(), None)  # type: ignore[arg-type]
    for _ in range(3):
        synced = synchronizer.synchronize(force=True)
        assert synced is not None
        assert synced.global_step == 8
    assert not disregarded
    assert averager.asked == [(LIAR,)] * 3


def test_a_newcomer_waits_for_the_current_state_and_does_not_take_an_older_one(state, monkeypatch):
    monkeypatch.setattr(synchronization, "RETRY_SECONDS", 0.0)
    averager = Busy({LIAR: 8, HONEST: 7}, state)
    view = view_of(liar_step=8, honest_step=7)
    synchronizer = Synchronizer(state, averager, presence_of(view), threading.Event(), None)  # type: ignore[arg-type]
    synced = synchronizer.synchronize(force=True)
    assert synced is not None
    assert synced.global_step == 8
    assert averager.asked == [(LIAR,)] * 3


def test_a_donor_of_something_else_is_asked_no_more(state):
    averager = Unfit({LIAR: 8, HONEST: 7}, state)
    view = view_of(liar_step=8, honest_step=7)
    synchronizer = Synchronizer(state, averager, presence_of(view), threading.Event(), None)  # type: ignore[arg-type]
    for _ in range(2):
        synchronizer.synchronize(force=True)
    assert averager.asked == [(LIAR,), (HONEST,), (HONEST,)]


def test_a_state_of_a_step_that_nobody_can_be_at_is_refused_and_an_honest_one_taken(state):
    now = time.time()
    told = {"run_id": SPEC.run_id, "issued": now, "expires": now + 20, "step": 7}
    lease = Lease(**told, state=PeerState.TRAINING, samples=0)
    head = HeadRecord(**told, reached=now, state_digest="0" * 64, branch="")
    view = SwarmView(now=now, leases={LIAR: lease, HONEST: lease}, head=head, coordinators=())
    averager = Averager({LIAR: 10**6, HONEST: 7}, state)
    synchronizer = Synchronizer(state, averager, presence_of(view), threading.Event(), None)  # type: ignore[arg-type]
    synced = synchronizer.synchronize(force=True)
    assert synced is not None
    assert (synced.global_step, synced.donor, state.step) == (7, HONEST, 7)
    assert set(averager.asked[0]) == {LIAR, HONEST}
    assert averager.asked[-1] == (HONEST,)
