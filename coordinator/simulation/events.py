"""The clock of a simulation: calls what was scheduled, in order of time, and of scheduling where times are equal."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any


class EventQueue:
    """Discrete events; there is no way to take one back, so what became pointless must notice it itself.

    >>> queue, seen = EventQueue(), []
    >>> queue.at(2.0, seen.append, "second"); queue.at(1.0, seen.append, "first")
    >>> queue.run(until=10.0); seen, queue.now
    (['first', 'second'], 10.0)
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._count = 0

    def at(self, t: float, call: Callable[..., object], *arguments: Any) -> None:
        """Call at time `t`, or now if that has passed."""
        self._count += 1
        heapq.heappush(self._heap, (max(t, self.now), self._count, call, arguments))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _count, call, arguments = heapq.heappop(self._heap)
            call(*arguments)
        self.now = until
