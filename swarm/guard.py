"""What the others may contribute to an average: bounds on values and weights, checked on receipt and on return.

A round takes each value from its sender and gives it back from its reducer; either may lie, and guarding one direction
only was measured to be worse than none, because a refused sender still reduces its share. So parts that are not finite,
too large beside our own, of a wrong shape or of too much weight are refused from senders, and what reducers return is
held to the same bounds; where it does not keep them, our own values stay. Whoever did it is remembered as an offender.

What this cannot see is a gradient of ordinary size that points the wrong way: see `swarm.robust`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from swarm.rounds import RoundKind

# a mean gradient over few samples is noisier, which is accounted for separately
GRADIENT_FACTOR = 10.0
# parameters of one swarm are nearly equal
STATE_FACTOR = 1.0


@dataclass(frozen=True)
class RoundLimits:
    """Bounds of one round.

    :param weights: most that a peer's values may weigh, by peer id; `most`: those of peers that are not named
    :param usual_size: root mean square of the values of recent averages, for rounds to which we bring nothing
    :param factor: how much larger than ours a gradient may be
    :param grows: whether values are larger the more samples they stand for, as how far somebody has moved is
    """

    kind: RoundKind
    weights: Mapping[str, float] = field(default_factory=dict)
    most: float = math.inf
    usual_size: float | None = None
    factor: float = GRADIENT_FACTOR
    grows: bool = False


class PartGuard:
    """Judges parts of one round by our own values.

    :param own_size: root mean square of all our values
    :param own_weight: of our values in the average

    >>> guard = PartGuard(RoundLimits(RoundKind.GRADIENTS), own_size=1.0, own_weight=8.0)
    >>> own = torch.ones(4)
    >>> guard.why_refused(2 * own, own, weight=8.0, most=8.0) is None
    True
    >>> guard.why_refused(1000 * own, own, weight=8.0, most=8.0)
    'values of 2000 where ours have 2'
    """

    def __init__(self, limits: RoundLimits, own_size: float, own_weight: float):
        self.limits, self.own_weight = limits, own_weight
        self.size = own_size if own_size > 0 else (limits.usual_size or math.inf)

    def why_refused(self, part: torch.Tensor, own: torch.Tensor, weight: float, most: float) -> str | None:
        """Why a sender's part must not be added; None if it may.

        :param own: our values of the same part
        :param weight: that the sender claims; `most`: that it may
        """
        if not 0 <= weight <= most:  # neither if it is NaN
            return f"a weight of {weight:g} where at most {most:g} was reported"
        if part.shape != own.shape or part.dtype != own.dtype:
            return f"{part.dtype}{list(part.shape)} instead of {own.dtype}{list(own.shape)}"
        return self._why_too_large(part, own, self._room(weight))

    def why_result_refused(self, delta: torch.Tensor, own: torch.Tensor) -> str | None:
        """Why a reducer's answer, the average less our own values, must not be taken over; None if it may."""
        if delta.shape != own.shape or not delta.is_floating_point():
            return f"{delta.dtype}{list(delta.shape)} instead of {own.dtype}{list(own.shape)}"
        heaviest = max(self.limits.weights.values(), default=self.own_weight)
        return self._why_too_large(own + delta, own, self._room(heaviest) if self.limits.grows else 1.0)

    def _room(self, weight: float) -> float:
        """How many times larger than ours honest values of this weight can be: noisier, or of more steps."""
        if not weight or not self.own_weight:
            return 1.0
        if self.limits.grows:
            return max(1.0, weight / self.own_weight)
        return math.sqrt(max(1.0, self.own_weight / weight))

    def _why_too_large(self, part: torch.Tensor, own: torch.Tensor, room: float) -> str | None:
        ours = max(_norm(own), self.size * math.sqrt(own.numel()))
        if self.limits.kind is RoundKind.STATE:
            size, bound = _norm(part - own), STATE_FACTOR * ours
        else:
            size, bound = _norm(part), self.limits.factor * room * ours
        if size <= bound and math.isfinite(size):
            return None
        return f"values of {size:.4g} where ours have {ours:.4g}"


def size_of(tensors: Sequence[torch.Tensor]) -> float:
    """Root mean square of all values."""
    values = sum(tensor.numel() for tensor in tensors)
    return math.sqrt(sum(_norm(tensor) ** 2 for tensor in tensors) / max(1, values))


def _norm(tensor: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(tensor))
