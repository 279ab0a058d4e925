"""The sum of gradients and the count of samples since the last global step.

Micro-batches touch only this: gradients add up in the model's own `.grad`, at no cost over plain PyTorch. A gradient
that is not finite never leaves the peer: it empties the accumulator instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch


class Accumulator:
    """Gradient accumulation weighted by samples.

    `samples` counts everything accumulated, `samples_taken_over` the part of it that other peers computed.

    >>> parameter = torch.nn.Parameter(torch.zeros(2))
    >>> accumulator = Accumulator([parameter])
    >>> accumulator.add((parameter * torch.tensor([1.0, 3.0])).sum(), samples=4)
    True
    >>> buffers = [torch.empty(2)]
    >>> accumulator.mean_into(buffers), buffers[0].tolist()
    (True, [1.0, 3.0])
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]):
        self._parameters = list(parameters)
        self.samples = 0
        self.samples_taken_over = 0
        self.loss_sum = 0.0

    @property
    def mean_loss(self) -> float | None:
        """Mean loss over the accumulated samples."""
        return self.loss_sum / self.samples if self.samples else None

    def add(self, loss: torch.Tensor, samples: int) -> bool:
        """Backpropagate the mean loss of a micro-batch of `samples`; False (and nothing added) if it is not finite."""
        value = float(loss.detach())
        if not torch.isfinite(loss.detach()):
            return False
        (loss * samples).backward()
        self.samples += samples
        self.loss_sum += value * samples
        return True

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

    def mean_into(self, buffers: Sequence[torch.Tensor]) -> bool:
        """Write the mean gradient per sample into `buffers` (zeros for no samples).

        :returns: False, with zeros written and everything accumulated thrown away, if any value is not finite
        """
        scale = 1.0 / self.samples if self.samples else 0.0
        with torch.no_grad():
            for parameter, buffer in zip(self._parameters, buffers, strict=True):
                if parameter.grad is None or not self.samples:
                    buffer.zero_()
                else:
                    buffer.copy_(parameter.grad).mul_(scale)
            if all(bool(torch.isfinite(buffer).all()) for buffer in buffers):
                return True
            for buffer in buffers:
                buffer.zero_()
        self.reset()
        return False

    def reset(self) -> None:
        """Forget everything accumulated."""
        for parameter in self._parameters:
            parameter.grad = None
        self.samples = self.samples_taken_over = 0
        self.loss_sum = 0.0
