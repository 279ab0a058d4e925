"""The dynamic loss scale of fp16 (Micikevicius et al., 2018): keeps small gradients from vanishing in half precision.

A gradient is divided by the scale before it is added to anything, and one that overflowed is not added at all, so
what leaves this process never depends on the scale. On a node the ranks agree on the lowest scale at every global
step; between two steps each lowers its own as soon as it must.
"""

from __future__ import annotations

INITIAL = 2.0**16
GROWTH_INTERVAL = 2000


class LossScale:
    """A power of two: halved at every overflow, doubled after `GROWTH_INTERVAL` micro-batches without one.

    >>> scale = LossScale(8.0)
    >>> scale.overflowed(); scale.value
    4.0
    """

    def __init__(self, value: float = INITIAL):
        self.value = value
        self.overflows = 0
        self._good = 0

    def overflowed(self) -> None:
        """A gradient was not finite."""
        self.value = max(1.0, self.value / 2)
        self.overflows += 1
        self._good = 0

    def passed(self) -> None:
        """A gradient was finite."""
        self._good += 1
        if self._good >= GROWTH_INTERVAL:
            self.value *= 2
            self._good = 0

    def agree(self, value: float) -> None:
        """Take the scale that all ranks of a node have agreed on."""
        if value != self.value:
            self.value, self._good = value, 0
