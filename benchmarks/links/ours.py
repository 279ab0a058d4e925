"""One of our peers, whole but for its text and its computing: training loop, global steps, averager, leases."""

from __future__ import annotations

import os
import tempfile
import threading
import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.links.stand_in import SAMPLES, Computing, hear, say, sent_bytes
from peer.accumulator import Accumulator
from peer.global_step import GlobalStep, StepReport
from peer.hand_over import HandOverDesk
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
from swarm.states import PeerState
from swarm.training_state import TrainingState, build_model

DEADLINE_SECONDS = 120.0
DOWNLOAD_SECONDS = 600.0


class Steps(Reporter):
    """Remembers what each step reported, and what was computed and sent by then."""

    def __init__(self, computing: Computing):
        self._computing = computing
        self.steps: list[dict[str, float]] = []

    def step(self, report: StepReport, summary: str) -> None:
        self.steps.append(
            {
                "end": time.monotonic(),
                "computed": self._computing.seconds,
                "sent": sent_bytes(),
                "samples": report.swarm_samples,
                "own": report.samples,
                "group": report.group,
                "received": report.received,
                "matchmaking": report.seconds.matchmaking,
                "allreduce": report.seconds.allreduce,
                "step": report.seconds.step,
            }
        )

    def _line(self, text: str) -> None:
        """What a person would read; stdout is for the driver."""


class StandInMicroBatches:
    """Fills the accumulator as real micro-batches would."""

    def __init__(self, computing: Computing, accumulator: Accumulator, duration: float):
        self._computing, self._accumulator = computing, accumulator
        self.samples_computed, self.samples_per_second = 0, SAMPLES / duration
        self.samples = SimpleNamespace(
            position=0.0, take_wait=lambda: 0.0, keep_up=_nothing, join_others=_nothing
        )

    def compute(self, _step: int) -> int:
        """One micro-batch."""
        self._computing.micro_batch()
        self._accumulator.samples += SAMPLES
        self.samples_computed += SAMPLES
        return SAMPLES


def main() -> None:
    """Obey: join, and when told so make the steps and say what they took."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="torch.quantize_per_tensor")
    setup = hear()
    spec = RunSpec.model_validate_json(setup["spec"])
    identity, path = Identity.generate(), Path(tempfile.mkdtemp(dir=setup["folder"])) / "identity.key"
    identity.save(path)
    dht = open_dht(
        identity_path=path,
        initial_peers=setup["initial_peers"],
        host_maddrs=["/ip4/0.0.0.0/tcp/0"],
        admission=Admission(spec.run_id, ()),
    )
    state = TrainingState(spec, build_model(spec, vocab_size=spec.data.vocab_size, pad_token_id=0))
    buffers = [torch.zeros(parameter.shape) for parameter in state.parameters]
    averager = SwarmAverager(
        buffers, dht, prefix=spec.run_id, spec=spec.averaging, state_source=state.snapshot
    )
    presence = Presence(
        RecordBoard(dht, spec.run_id, identity), spec, Description("bench", "0", "cpu"), state.settings
    )
    presence.start()
    if not setup["newcomer"]:
        presence.update(state=PeerState.TRAINING)
    say(addresses=[str(address) for address in dht.get_visible_maddrs()])
    hear()
    _wait_for(presence, setup["peers"])
    say(ready=True)
    hear()
    if setup["newcomer"]:
        donor = presence.refresh().donors(0, exclude=presence.peer_id)[0]
        started = time.monotonic()
        averager.download_state(donor, shapes=state.shapes, timeout=DOWNLOAD_SECONDS)
        say(
            seconds=time.monotonic() - started,
            donor=donor,
            bytes=4 * sum(map(torch.Size.numel, state.shapes)),
        )
        hear()
        os._exit(0)
    accumulator = Accumulator(state.model_parameters)
    computing = Computing(state.model_parameters, setup["micro_batch_seconds"])
    reporter = Steps(computing)
    loop = _loop(spec, state, accumulator, computing, averager, buffers, presence, reporter, setup)
    loop.run(setup["steps"])
    say(steps=reporter.steps)
    hear()  # the others may still need us
    os._exit(0)


def _loop(
    spec: RunSpec,
    state: TrainingState,
    accumulator: Accumulator,
    computing: Computing,
    averager: SwarmAverager,
    buffers: list[torch.Tensor],
    presence: Presence,
    reporter: Reporter,
    setup: dict[str, Any],
) -> TrainingLoop:
    suspension = SuspensionWatch(spec.leases.expiration)
    suspension.start()
    synchronizer = SimpleNamespace(synchronize=lambda *, force: Synced(state.step, None, 0.0))
    departure = SimpleNamespace(leave=_nothing, grace=SimpleNamespace(reason=""))
    return TrainingLoop(
        spec,
        state,
        StandInMicroBatches(computing, accumulator, setup["micro_batch_seconds"]),  # type: ignore[arg-type]
        accumulator,
        GlobalStep(state, accumulator, averager, buffers, presence, suspension),
        synchronizer,  # type: ignore[arg-type]
        presence,
        HandOverDesk(presence, [buffer.shape for buffer in buffers]),
        departure,  # type: ignore[arg-type]
        suspension,
        reporter,
        threading.Event(),
    )


def _wait_for(presence: Presence, peers: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(presence.view.members_at(0, "")) < peers:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{peers} peers did not show up")
        time.sleep(0.1)


def _nothing(*_given: object, **_named: object) -> None:
    pass


if __name__ == "__main__":
    main()
