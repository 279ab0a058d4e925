"""A peer whole but for its text: DHT, leases, averager, training loop; benchmarks bring their own micro-batches.

It is alone with who is told to it, starts from the seed, fetches the state when it falls behind, and leaves without a
word.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
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
from swarm.snapshot import Snapshot
from swarm.spec import RunSpec
from swarm.state_sharing import StateUnavailable
from swarm.training_state import TrainingState, build_model

DOWNLOAD_SECONDS = 600.0


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
            self._buffers, self.dht, prefix=spec.run_id, spec=spec.averaging, state_source=self.state.held
        )
        own_board = board(self.dht, spec.run_id, identity)
        self.presence = Presence(own_board, spec, Description("bench", "0", "cpu"), self.state.settings)
        self.presence.start()
        self.accumulator = Accumulator(self.state.model_parameters)

    def fetch_state(self, step: int) -> tuple[Snapshot, Sequence[str]]:
        """A state of this step or a later one, and who sent it; asked for again when the donors go on meanwhile.

        :raises TimeoutError: nobody has one
        """
        end = time.monotonic() + DOWNLOAD_SECONDS
        while time.monotonic() < end:
            view = self.presence.refresh()
            donors = view.fellows(view.donors(step, exclude=self.presence.peer_id))
            try:
                layouts = self.state.layouts
                return self.averager.download_state(
                    *donors, layouts=layouts, timeout=DOWNLOAD_SECONDS
                ), donors
            except StateUnavailable as error:
                print(f"asking again: {error}", file=sys.stderr)
        raise TimeoutError(f"nobody had a state of step {step}")

    def _catch_up(self) -> Synced:
        began, newest = time.monotonic(), self.presence.refresh().newest_step
        if newest <= self.state.step:
            return Synced(self.state.step, None, 0.0)
        snapshot, donors = self.fetch_state(newest)
        self.state.load(snapshot)
        self.presence.update(step=self.state.step, branch=self.state.branch)
        return Synced(self.state.step, donors[0], time.monotonic() - began)

    def training_loop(
        self, micro_batches: MicroBatches, reporter: Reporter, stop: threading.Event
    ) -> TrainingLoop:
        """The loop over these micro-batches."""
        suspension = SuspensionWatch(self.spec.leases.expiration)
        suspension.start()
        synchronizer = SimpleNamespace(synchronize=lambda *, force: self._catch_up())
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
