"""The books of a simulation: every computed sample ends in a step, is lost for a reason, or is still pending.

Invariant, checked by the tests: samples computed = in steps + lost + pending at the end.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum


class Loss(str, Enum):
    """Why samples went into no global step."""

    KILLED = "killed"  # their peer was killed with them
    SUSPENDED = "suspended"  # their peer was frozen or cut off until they were stale
    LATE = "late"  # the step was made without their peer
    NO_RECEIVER = "no receiver"  # handed over when nobody was there to take them


@dataclass(frozen=True)
class StepRecord:
    """One global step, at the moment it was made.

    :param seconds: since the last one
    :param partial: whether a member was missing from the exchange
    """

    t: float
    seconds: float
    samples: int
    group: int
    partial: bool


@dataclass
class Ledger:
    """Counts samples, steps and rounds.

    :param rounds_partial, rounds_failed: as their members count them, so that a round of three counts three times
    :param steps_apart: steps that members made each alone although they saw each other
    """

    computed: int = 0
    in_steps: int = 0
    pending: int = 0
    lost: Counter[Loss] = field(default_factory=Counter)
    steps: list[StepRecord] = field(default_factory=list)
    rounds: int = 0
    rounds_partial: int = 0
    rounds_failed: int = 0
    steps_apart: int = 0
    recoveries: list[float] = field(default_factory=list)
    rejoins: list[float] = field(default_factory=list)
    departures: Counter[str] = field(default_factory=Counter)
    visits: int = 0
    visits_without_step: int = 0
    _struck: list[float] = field(default_factory=list)

    def struck(self, t: float) -> None:
        """A working peer was killed; the swarm has recovered when it makes its next step."""
        self._struck.append(t)

    def commit(self, t: float, samples: int, group: int, partial: bool) -> None:
        """A global step was made."""
        last = self.steps[-1].t if self.steps else 0.0
        self.steps.append(StepRecord(t, t - last, samples, group, partial))
        self.in_steps += samples
        self.recoveries += [t - struck for struck in self._struck]
        self._struck.clear()


class OnlineTimeline:
    """How many peers were online, averaged over equal slices of time."""

    def __init__(self, seconds: float, slices: int):
        self.width = seconds / slices
        self.peer_seconds = [0.0] * slices
        self.online = 0
        self.highest = 0
        self._lowest: int | None = None
        self._since = 0.0

    def change(self, t: float, difference: int) -> None:
        """So many more (or fewer) from now on."""
        self.pass_time(t)
        self.online += difference
        self.highest = max(self.highest, self.online)

    @property
    def lowest(self) -> int:
        """The lowest count that lasted."""
        return self.online if self._lowest is None else self._lowest

    def pass_time(self, t: float) -> None:
        """Book the time until `t` at the present count."""
        if self._since < t:
            self._lowest = min(self.lowest, self.online)
        while self._since < t:
            index = min(int(self._since / self.width + 1e-9), len(self.peer_seconds) - 1)
            last = index == len(self.peer_seconds) - 1
            end = t if last else min(t, (index + 1) * self.width)
            if end <= self._since:
                break
            self.peer_seconds[index] += self.online * (end - self._since)
            self._since = end

    @property
    def mean_online(self) -> list[float]:
        """Peers online in each slice."""
        return [seconds / self.width for seconds in self.peer_seconds]
