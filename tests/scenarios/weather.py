"""What a storm does to its peers, and when: a seeded list of disturbances."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum


class Disturbance(str, Enum):
    """Kinds of disturbance, named as in the storm's report."""

    KILL = "kill"  # kill -9 of the whole process group, started again soon
    KILL_MAIN = "kill_main"  # kill -9 of the main process alone, started again soon
    LEAVE = "leave"  # SIGTERM, started again soon
    FREEZE = "freeze"  # SIGSTOP, then SIGCONT
    CUT = "cut"  # the peer's link goes down, then up
    SPLIT = "split"  # half of the hosts cut from the other half, then joined
    COORDINATOR_KILL = "coordinator_kill"  # kill -9, started again soon


@dataclass(frozen=True)
class Gust:
    """One disturbance at `t` seconds; `lot` in [0, 1) chooses its victim among those who are there."""

    t: float
    kind: Disturbance
    lot: float


def forecast(every: Mapping[Disturbance, float], seconds: float, seed: int) -> list[Gust]:
    """All gusts of a storm of so many seconds; `every` gives the mean time between two of a kind.

    >>> [gust.kind.value for gust in forecast({Disturbance.KILL: 30.0}, 90.0, seed=1)]
    ['kill', 'kill']
    """
    gusts = [gust for kind, period in every.items() for gust in _of_kind(kind, period, seconds, seed)]
    return sorted(gusts, key=lambda gust: gust.t)


def _of_kind(kind: Disturbance, period: float, seconds: float, seed: int) -> Iterator[Gust]:
    rng = random.Random(f"{seed}-{kind.value}")
    t = period * rng.uniform(0.5, 1.0)
    while t < seconds:
        yield Gust(t, kind, rng.random())
        t += period * rng.uniform(0.75, 1.25)
