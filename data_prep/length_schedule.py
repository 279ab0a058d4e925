"""Sequence length as a function of the global step, so that all peers change it at the same step."""

from __future__ import annotations

from dataclasses import dataclass

from data_prep.errors import DataError


@dataclass(frozen=True)
class LengthSchedule:
    """From ``start`` to ``end`` tokens over ``warmup_steps`` global steps, in multiples of ``multiple``.

    >>> schedule = LengthSchedule(start=256, end=2048, warmup_steps=1000)
    >>> schedule(0), schedule(500), schedule(10_000)
    (256, 1152, 2048)
    """

    start: int
    end: int
    warmup_steps: int
    multiple: int = 64

    def __post_init__(self) -> None:
        if not 0 < self.start <= self.end or self.warmup_steps < 0 or self.multiple < 1:
            raise DataError(
                f"sequence length must grow from a positive start to an end not below it, "
                f"not from {self.start} to {self.end} over {self.warmup_steps} steps"
            )

    def __call__(self, global_step: int) -> int:
        if global_step >= self.warmup_steps:
            return self.end
        exact = self.start + (self.end - self.start) * max(0, global_step) / self.warmup_steps
        return min(self.end, max(self.start, int(exact) // self.multiple * self.multiple))
