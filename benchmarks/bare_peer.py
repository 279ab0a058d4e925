"""A peer whole but for its text: DHT, leases, averager, training loop; benchmarks bring their own micro-batches.

It is alone with who is told to it, starts from the seed, and leaves without a word.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch

from peer.accumulator import Accumulator
from peer.global_step import GlobalStep
from peer.hand_over import HandOverDesk
from peer.micro_batches import MicroBatches
from peer.presence import Description, Presence
from peer.reporting import Reporter
from peer.suspension import SuspensionWatch
from peer.synchronization import Synced
from peer.training_loop import TrainingLoop
from swarm.admission import Admission
from swarm.averager import SwarmAverager
from swarm.dht import RecordBoard, open_dht
from swarm.identity import Identity
from swarm.spec import RunSpec
from swarm.training_state import TrainingState, build_model


class Silent(Reporter):
    """Says nothing."""

    def _line(self, text: str) -> None:
        """What a person would read."""


class BarePeer:
    """Joins the DHT when it is made.

    :param board: kind of board on which it reads and writes records
    """

    def __init__(
        self, spec: RunSpec, folder: str, initial_peers: Sequence[str], board: type[RecordBoard] = RecordBoard
    ):
        identity, path = Identity.generate(), Path(tempfile.mkdtemp(dir=folder)) / "identity.key"
        identity.save(path)
        self.spec = spec
        self.dht = open_dht(
            identity_path=path,
            initial_peers=initial_peers,
            host_maddrs=["/ip4/0.0.0.0/tcp/0"],
            admission=Admission(spec.run_id, ()),
        )
        self.state = TrainingState(spec, build_model(spec, vocab_size=spec.data.vocab_size, pad_token_id=0))
        self._buffers = [torch.zeros(parameter.shape) for parameter in self.state.parameters]
        self.averager = SwarmAverager(
            self._buffers, self.dht, prefix=spec.run_id, spec=spec.averaging, state_source=self.state.snapshot
        )
        own_board = board(self.dht, spec.run_id, identity)
        self.presence = Presence(own_board, spec, Description("bench", "0", "cpu"), self.state.settings)
        self.presence.start()
        self.accumulator = Accumulator(self.state.model_parameters)

    def training_loop(
        self, micro_batches: MicroBatches, reporter: Reporter, stop: threading.Event
    ) -> TrainingLoop:
        """The loop over these micro-batches."""
        suspension = SuspensionWatch(self.spec.leases.expiration)
        suspension.start()
        synchronizer = SimpleNamespace(synchronize=lambda *, force: Synced(self.state.step, None, 0.0))
        departure = SimpleNamespace(leave=lambda *_given: None, grace=SimpleNamespace(reason=""))
        return TrainingLoop(
            self.spec,
            self.state,
            micro_batches,
            self.accumulator,
            GlobalStep(self.state, self.accumulator, self.averager, self._buffers, self.presence, suspension),
            synchronizer,  # type: ignore[arg-type]
            self.presence,
            HandOverDesk(self.presence, [buffer.shape for buffer in self._buffers]),
            departure,  # type: ignore[arg-type]
            suspension,
            reporter,
            stop,
        )
