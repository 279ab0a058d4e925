"""One of our peers, whole but for its text and its computing: training loop, global steps, averager, leases."""

from __future__ import annotations

import logging
import os
import threading
import time
import traceback
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.bare_peer import BarePeer, Silent
from benchmarks.links.stand_in import SAMPLES, Computing, hear, say, sent_bytes
from peer.accumulator import Accumulator
from peer.global_step import StepReport
from peer.presence import Presence
from swarm.averager import FAST_ENOUGH_MEGABITS
from swarm.snapshot import Layout
from swarm.spec import RunSpec
from swarm.states import PeerState

DEADLINE_SECONDS = 120.0


class Steps(Silent):
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
    # a round that failed makes a row that is not like others
    logging.basicConfig(format="%(asctime)s %(process)d %(message)s")
    logging.getLogger("peer.global_step").setLevel(logging.INFO)
    setup = hear()
    peer = BarePeer(RunSpec.model_validate_json(setup["spec"]), setup["folder"], setup["initial_peers"])
    peer.averager.bandwidth = min(setup["megabits"], FAST_ENOUGH_MEGABITS)
    if not setup["newcomer"]:
        peer.presence.update(state=PeerState.TRAINING)
    say(addresses=[str(address) for address in peer.dht.get_visible_maddrs()])
    hear()
    _wait_for(peer.presence, setup["peers"])
    say(ready=True)
    command = hear()
    say(**(_fetch(peer, setup["peers"], command["after"]) if setup["newcomer"] else _train(peer, setup)))
    hear()  # the others may still need us
    os._exit(0)


def _train(peer: BarePeer, setup: dict[str, Any]) -> dict[str, Any]:
    computing = Computing(peer.state.model_parameters, setup["micro_batch_seconds"])
    reporter = Steps(computing)
    batches = StandInMicroBatches(computing, peer.accumulator, setup["micro_batch_seconds"])
    peer.training_loop(batches, reporter, threading.Event()).run(setup["steps"])  # type: ignore[arg-type]
    return {"steps": reporter.steps}


def _fetch(peer: BarePeer, peers: int, after: float) -> dict[str, Any]:
    """As a newcomer does, so many seconds after all have made the first step."""
    _wait_for(peer.presence, peers, step=1)
    time.sleep(after)
    began = time.monotonic()
    snapshot, donors = peer.fetch_state(0)
    size = sum(Layout.of(tensor).bytes for tensor in snapshot.tensors)
    return {"seconds": time.monotonic() - began, "donors": donors, "bytes": size}


def _wait_for(presence: Presence, peers: int, step: int = 0) -> None:
    """Until so many train and have come to this step."""
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(presence.view.donors(step, exclude="")) < peers:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{peers} peers did not show up")
        time.sleep(0.1)


def _nothing(*_given: object, **_named: object) -> None:
    pass


if __name__ == "__main__":
    try:
        main()
    except Exception:
        traceback.print_exc()
        os._exit(1)  # an ordinary end would wait for processes that nobody has told to end
