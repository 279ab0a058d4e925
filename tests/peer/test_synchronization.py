"""From whom a newcomer takes its state, and whom it does not believe."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import torch

from peer.synchronization import Synchronizer
from swarm.clock import SwarmView
from swarm.identity import Identity
from swarm.records import HeadRecord, Lease
from swarm.snapshot import Snapshot
from swarm.spec import ModelSpec, RunSpec
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


def presence_of(view: SwarmView) -> SimpleNamespace:
    return SimpleNamespace(
        view=view,
        peer_id=Identity.generate().peer_id,
        refresh=lambda: view,
        require_present=lambda: None,
        update=lambda **_changes: None,
    )


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
