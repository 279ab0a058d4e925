"""What taking part in a swarm adds to a micro-batch, against plain gradient accumulation in PyTorch, in turns.

    python -m benchmarks.micro_batch_overhead [--spec SPEC] [--peers 100] [--micro-batches 4] [--rounds 30]

Both compute the same micro-batches of the spec's model with the same memory allocator. Ours goes through the peer's
training loop: a thread that renews the lease and looks at the swarm, a view of so many other peers after every
micro-batch, whether a step is due, what departing peers hand over. No step becomes due. Counted is the processor time
of the whole process, so that other programs on this machine do not matter.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.bare_peer import BarePeer, Silent
from benchmarks.interleaved import median_ratio, print_table, time_in_turns
from peer.micro_batches import MicroBatches
from peer.training_loop import TrainingLoop
from swarm.dht import RecordBoard
from swarm.records import Lease
from swarm.spec import RunSpec, load_spec
from swarm.states import PeerState

ENDLESS = 2**31 - 1


class CrowdedBoard(RecordBoard):
    """A board on which so many others have their leases."""

    peers = 0

    def ask(self, record_type: Any, *arguments: Any) -> Any:
        answer = super().ask(record_type, *arguments)
        if record_type is not Lease:
            return answer
        crowd = {f"peer {number}": self._lease(number) for number in range(self.peers)}
        return lambda: {**(answer() or {}), **crowd}

    def _lease(self, number: int) -> Lease:
        now = time.time()
        return Lease(
            run_id=self.run_id,
            issued=now,
            expires=now + 20,
            state=PeerState.TRAINING,
            step=0,
            samples=number,
            samples_per_second=1.0,
            client_mode=False,
        )


class MadeUpText:
    """The same batch again and again; everything else that the loop asks of samples is nothing."""

    def __init__(self, spec: RunSpec):
        size = (spec.training.micro_batch_size, spec.data.sequence_length)
        labels = torch.randint(5, spec.data.vocab_size, size)
        masked = torch.rand(size) < 0.15
        self.batch = {"input_ids": labels, "labels": labels.masked_fill(~masked, -100)}
        self.batch_size, self.position = size[0], 0.0

    def next_batch(self, _step: int) -> Mapping[str, torch.Tensor]:
        return self.batch

    def take_wait(self) -> float:
        return 0.0

    def keep_up(self, *_given: Any, **_named: Any) -> None:
        """There is no text to keep up with."""

    join_others = keep_up


class CountedMicroBatches(MicroBatches):
    """Stops the loop after so many."""

    stop = threading.Event()
    left = 0

    def compute(self, global_step: int) -> int:
        self.left -= 1
        if self.left <= 0:
            self.stop.set()
        return super().compute(global_step)


def training_loop(spec: RunSpec, folder: str) -> tuple[TrainingLoop, CountedMicroBatches]:
    """A peer alone on its DHT, which sees a crowd."""
    peer = BarePeer(spec, folder, [], CrowdedBoard)
    peer.presence.update(state=PeerState.TRAINING)
    text, device = MadeUpText(spec), torch.device("cpu")
    batches = CountedMicroBatches(
        peer.state.model,
        text,
        peer.accumulator,
        device,
        "fp32",
        lambda _text: None,  # type: ignore[arg-type]
    )
    return peer.training_loop(batches, Silent(), batches.stop), batches


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", type=Path, default=Path("examples/demo.toml"))
    parser.add_argument("--peers", type=int, default=100)
    parser.add_argument("--micro-batches", type=int, default=4, help="in each turn")
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    torch.set_num_threads(1)
    spec = load_spec(given.spec)
    training = spec.training.model_copy(update={"target_batch_size": ENDLESS})
    spec = spec.model_copy(update={"training": training})
    with tempfile.TemporaryDirectory() as folder:
        CrowdedBoard.peers = given.peers
        loop, batches = training_loop(spec, folder)
        model, batch = loop.state.model, loop.samples.next_batch(0)

        def plain() -> None:
            model.train()
            for _ in range(given.micro_batches):
                model(**batch).loss.backward()

        def ours() -> None:
            batches.stop.clear()
            batches.left = given.micro_batches
            loop.run()

        seconds = time_in_turns(
            {"plain PyTorch": plain, "in a swarm": ours}, given.rounds, clock=time.process_time
        )
    rows = [
        (
            name,
            f"{1000 * statistics.median(of_name) / given.micro_batches:.2f}",
            f"{median_ratio(seconds, name, 'plain PyTorch') - 1:+.2%}",
        )
        for name, of_name in seconds.items()
    ]
    print_table(("", "ms of processor a micro-batch", "more than plain"), rows)
    os._exit(0)


if __name__ == "__main__":
    main()
