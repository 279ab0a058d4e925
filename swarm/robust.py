"""Averages that a minority of liars cannot steer: centred clipping of every part, from the values of all senders.

S. P. Karimireddy, L. He, M. Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021, equation (3):
starting from a guess v, v += sum_i w_i (x_i - v) min(1, tau / |x_i - v|). The guess is the coordinate-wise median and
tau the median distance from it, so there is nothing to tune. A reducer holds one part of every sender at a time.
"""

from __future__ import annotations

import torch

ITERATIONS = 3


class CentredClipping:
    """Takes the place of a reducer's running sum: collects what is added, and divides it by clipping it.

    >>> parts = CentredClipping()
    >>> for sign in (1.0, 1.0, 1.0, -100.0):
    ...     _ = parts.add_(sign * torch.ones(3), alpha=8.0)
    >>> bool((parts.div_(32.0) > 0.9).all())
    True
    """

    def __init__(self) -> None:
        self._parts: list[torch.Tensor] = []
        self._weights: list[float] = []

    def add_(self, part: torch.Tensor, *, alpha: float = 1.0) -> CentredClipping:
        """Take one sender's values; those without weight do not count."""
        if alpha > 0:
            self._parts.append(part.clone())
            self._weights.append(alpha)
        return self

    def div_(self, _denominator: float) -> torch.Tensor:
        """The aggregate; of two senders, who can only contradict each other, it is the mean."""
        if not self._parts:
            raise ValueError("nothing was added")
        values, weights = torch.stack(self._parts), torch.tensor(self._weights)
        weights = weights / weights.sum()
        if len(self._parts) <= 2:
            return _weighted_sum(values, weights)
        centre = values.median(dim=0).values
        radius = torch.linalg.vector_norm((values - centre).flatten(1), dim=1).median()
        for _ in range(ITERATIONS):
            away = values - centre
            distance = torch.linalg.vector_norm(away.flatten(1), dim=1)
            keep = torch.where(
                distance > radius, radius / distance.clamp_min(1e-30), torch.ones_like(distance)
            )
            centre = centre + _weighted_sum(away, weights * keep)
        return centre


def _weighted_sum(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.tensordot(weights.to(values.dtype), values, dims=1)
