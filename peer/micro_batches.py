"""One micro-batch after another: from the samples through the model into the accumulator.

What a rank of a node and a peer alone have in common. A device that runs out of memory costs what was accumulated
since the last global step, and goes on with smaller micro-batches, at last with gradient checkpointing.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from model import LeanAlbertNetwork
from model.training_step import autocast, checkpoint_gradients, checkpoints_gradients
from peer.accumulator import Accumulator
from peer.samples import Samples
from swarm.errors import OperationFailed

SPEED_SMOOTHING = 0.2


class MicroBatches:
    """Computes micro-batches of one process.

    `samples_computed` counts all of them, `samples_per_second` is smoothed, `take_wait` the time without text.

    :param precision: of the forward pass
    :param say: told in words what a person should know
    """

    def __init__(
        self,
        model: LeanAlbertNetwork,
        samples: Samples,
        accumulator: Accumulator,
        device: torch.device,
        precision: str,
        say: Callable[[str], None],
    ):
        self.model, self.samples, self.accumulator = model, samples, accumulator
        self.device, self.precision, self.say = device, precision, say
        self.samples_computed = 0
        self.samples_per_second = 0.0

    def compute(self, global_step: int) -> int:
        """Compute one; returns how many samples it had, 0 if memory did not suffice."""
        started = time.monotonic()
        try:
            samples = self._compute(global_step)
        except torch.OutOfMemoryError:
            self.accumulator.reset()
            self._need_less_memory()
            return 0
        self.samples_computed += samples
        self._measure_speed(samples / (time.monotonic() - started))
        return samples

    def _compute(self, global_step: int) -> int:
        batch = {
            name: tensor.to(self.device) for name, tensor in self.samples.next_batch(global_step).items()
        }
        samples = len(batch["input_ids"])
        with autocast(self.device.type, self.precision):
            loss = self.model(**batch).loss
        scale = self.accumulator.scale
        overflows = scale.overflows if scale is not None else 0
        # with a loss scale, an overflow now and then is how the scale is found
        if not self.accumulator.add(loss, samples) and (scale is None or scale.overflows == overflows):
            self.say("skipped a micro-batch whose loss was not finite")
        return samples

    def _need_less_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        if self.samples.batch_size > 1:
            self.samples.batch_size //= 2
            self.say(
                f"{self.device} ran out of memory: micro-batches of {self.samples.batch_size} from now on"
            )
        elif not checkpoints_gradients(self.model):
            checkpoint_gradients(self.model)
            self.say(f"{self.device} ran out of memory: recomputing activations from now on")
        else:
            raise OperationFailed(
                f"a single sample does not fit into the memory of {self.device}: choose another --device"
            )

    def _measure_speed(self, samples_per_second: float) -> None:
        if self.samples_per_second == 0.0:
            self.samples_per_second = samples_per_second
        self.samples_per_second += SPEED_SMOOTHING * (samples_per_second - self.samples_per_second)
