"""The sum of gradients and the count of samples since the last global step.

Micro-batches touch only this: gradients add up in the model's own `.grad`, at no cost over plain PyTorch. For a global
step they are taken out, so that micro-batches can go on, and put back if the step was not made. A gradient that is not
finite never leaves the peer: it is thrown away instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from peer.loss_scale import LossScale


class Contribution:
    """What one peer puts into a global step.

    :param sums: of the gradients over `samples`, one per parameter; None for a parameter that has none
    :param taken_over: how many of the samples other peers had computed
    """

    def __init__(
        self,
        sums: Sequence[torch.Tensor | None],
        samples: int,
        taken_over: int = 0,
        loss_sum: float = 0.0,
    ):
        self.sums, self.samples, self.taken_over, self.loss_sum = list(sums), samples, taken_over, loss_sum

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over the samples."""
        return self.loss_sum / self.samples if self.samples else None

    def mean_into(self, buffers: Sequence[torch.Tensor]) -> bool:
        """Write the mean gradient per sample into `buffers` (zeros for no samples).

        :returns: False, with zeros written and the contribution emptied, if any value is not finite
        """
        scale = 1.0 / self.samples if self.samples else 0.0
        with torch.no_grad():
            for total, buffer in zip(self.sums, buffers, strict=True):
                if total is None or not self.samples:
                    buffer.zero_()
                else:
                    buffer.copy_(total).mul_(scale)
            if all(bool(torch.isfinite(buffer).all()) for buffer in buffers):
                return True
            for buffer in buffers:
                buffer.zero_()
        self.discard()
        return False

    def discard(self) -> None:
        """Be nothing."""
        self.sums = [None] * len(self.sums)
        self.samples = self.taken_over = 0
        self.loss_sum = 0.0


class Accumulator:
    """Gradient accumulation weighted by samples.

    `samples` counts everything accumulated, `samples_taken_over` the part of it that other peers computed.

    >>> parameter = torch.nn.Parameter(torch.zeros(2))
    >>> accumulator = Accumulator([parameter])
    >>> accumulator.add((parameter * torch.tensor([1.0, 3.0])).sum(), samples=4)
    True
    >>> buffers = [torch.empty(2)]
    >>> accumulator.take().mean_into(buffers), buffers[0].tolist()
    (True, [1.0, 3.0])

    :param scale: for micro-batches whose backward pass is in fp16
    """

    # whether what it puts into a step is larger the more samples it is of
    grows = False

    def __init__(self, parameters: Sequence[torch.nn.Parameter], scale: LossScale | None = None):
        self._parameters = list(parameters)
        self.scale = scale
        self.samples = 0
        self.samples_taken_over = 0
        self.loss_sum = 0.0

    def add(self, loss: torch.Tensor, samples: int) -> bool:
        """Backpropagate the mean loss of a micro-batch of `samples`.

        :returns: False, and nothing was added, if the loss is not finite, or its scaled gradient
        """
        value = float(loss.detach())
        if not torch.isfinite(loss.detach()):
            return False
        if self.scale is None:
            (loss * samples).backward()
        elif not self._add_scaled(loss, samples, self.scale):
            return False
        self.samples += samples
        self.loss_sum += value * samples
        return True

    def _add_scaled(self, loss: torch.Tensor, samples: int, scale: LossScale) -> bool:
        """Add the gradient only when it is known to be finite: an infinity could not be taken out of a sum again."""
        sums = [parameter.grad for parameter in self._parameters]
        for parameter in self._parameters:
            parameter.grad = None
        (loss.float() * scale.value).backward()
        fresh = [parameter.grad for parameter in self._parameters]
        if finite := all_finite([gradient for gradient in fresh if gradient is not None]):
            for parameter, total, gradient in zip(self._parameters, sums, fresh, strict=True):
                if gradient is not None:
                    gradient.mul_(samples / scale.value)
                    parameter.grad = gradient if total is None else total.add_(gradient)
                else:
                    parameter.grad = total
            scale.passed()
        else:
            for parameter, total in zip(self._parameters, sums, strict=True):
                parameter.grad = total
            scale.overflowed()
        return finite

    def sums(self) -> list[torch.Tensor]:
        """The sum of gradients per parameter, zeros for none; what is not finite empties the accumulator first."""
        gradients = [parameter.grad for parameter in self._parameters if parameter.grad is not None]
        if not all_finite(gradients):
            self.reset()
        return [
            torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            for parameter in self._parameters
        ]

    def replace(self, sums: Sequence[torch.Tensor], samples: int, loss_sum: float) -> None:
        """Hold what all ranks of a node have accumulated instead of our own part of it."""
        for parameter, total in zip(self._parameters, sums, strict=True):
            parameter.grad = total
        self.samples, self.loss_sum = samples, loss_sum

    def own_mean(self) -> list[torch.Tensor] | None:
        """The mean gradient per sample so far, [like each parameter], fp32 on the CPU; None for no samples."""
        if not self.samples:
            return None
        return [
            torch.zeros(parameter.shape)
            if parameter.grad is None
            else parameter.grad.to("cpu", torch.float32) / self.samples
            for parameter in self._parameters
        ]

    def take_over(self, mean: Sequence[torch.Tensor], samples: int, loss_sum: float) -> None:
        """Add what another peer has accumulated: its mean gradient per sample, and how many samples that is of."""
        with torch.no_grad():
            for parameter, gradient in zip(self._parameters, mean, strict=True):
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
                parameter.grad.add_(gradient.to(parameter.device, parameter.dtype), alpha=samples)
        self.samples += samples
        self.samples_taken_over += samples
        self.loss_sum += loss_sum

    def take(self) -> Contribution:
        """Everything accumulated, for a global step; the accumulator is empty afterwards."""
        taken = Contribution(
            [parameter.grad for parameter in self._parameters],
            self.samples,
            self.samples_taken_over,
            self.loss_sum,
        )
        self.reset()
        return taken

    def put_back(self, taken: Contribution) -> None:
        """Add what was taken out for a step that was not made."""
        with torch.no_grad():
            for parameter, total in zip(self._parameters, taken.sums, strict=True):
                if total is not None:
                    parameter.grad = total if parameter.grad is None else parameter.grad.add_(total)
        self.samples += taken.samples
        self.samples_taken_over += taken.taken_over
        self.loss_sum += taken.loss_sum

    def reset(self) -> None:
        """Forget everything accumulated."""
        for parameter in self._parameters:
            parameter.grad = None
        self.samples = self.samples_taken_over = 0
        self.loss_sum = 0.0


def all_finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether there is no infinity and no NaN; asks a device only once."""
    if not tensors:
        return True
    # the norm of one is not finite if any of its values is not, or if the values are beyond all use
    return bool(torch.isfinite(torch.stack(torch._foreach_norm(list(tensors)))).all())
