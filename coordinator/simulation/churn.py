"""Who comes and goes when: peers with their speeds and bandwidths, and what happens to each of them.

Drawn from a seed of its own, so that different run specs are tried on the very same peers and departures.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from coordinator.simulation.options import Churn, SimulationOptions
from coordinator.simulation.storm_report import StormEventKind, StormReport

DAY = 86400.0
# at night, 1.6 times as many peers arrive as on average; at noon 0.4 times: a shared cluster's idle hours
DAY_NIGHT_SWING = 0.6


@dataclass(frozen=True)
class PeerTraits:
    """What does not change about a peer; `bandwidth` in Mbit/s each way, infinite on one machine."""

    samples_per_second: float
    bandwidth: float = math.inf


@dataclass(frozen=True)
class Happening:
    """Something that happens to a peer from outside, `t` seconds after the beginning."""

    t: float
    kind: StormEventKind
    peer: int


@dataclass(frozen=True)
class Script:
    """All peers that ever take part, and everything that happens to them, in order of time."""

    peers: tuple[PeerTraits, ...]
    happenings: tuple[Happening, ...]


def draw_script(options: SimulationOptions) -> Script:
    """Peers and their stays, as the options describe them."""
    rng = random.Random(f"churn {options.seed}")
    traits: list[PeerTraits] = []
    happenings: list[Happening] = []
    for arrival in _arrivals(options, rng):
        happenings.append(Happening(arrival, StormEventKind.START, len(traits)))
        if options.churn is not Churn.NONE:
            departure = arrival + rng.expovariate(1.0 / options.mean_stay)
            kind = StormEventKind.LEAVE if rng.random() < options.polite else StormEventKind.KILL
            if departure < options.seconds:
                happenings.append(Happening(departure, kind, len(traits)))
        traits.append(
            PeerTraits(
                samples_per_second=options.speeds.draw(rng),
                bandwidth=options.bandwidth.draw(rng) if options.bandwidth else math.inf,
            )
        )
    return Script(tuple(traits), tuple(sorted(happenings, key=lambda one: (one.t, one.peer))))


def script_of_storm(storm: StormReport, speeds: Mapping[str, float]) -> Script:
    """The same peers and blows as in a real storm, all on one machine, at these speeds by name."""
    numbers = {peer.name: number for number, peer in enumerate(storm.peers)}
    outside = set(StormEventKind) - {StormEventKind.SYNCED, StormEventKind.LEFT}
    happenings = [
        Happening(event.t, event.kind, numbers[event.peer])
        for event in sorted(storm.events, key=lambda event: event.t)
        if event.peer is not None and event.kind in outside
    ]
    return Script(tuple(PeerTraits(speeds[peer.name]) for peer in storm.peers), tuple(happenings))


def _arrivals(options: SimulationOptions, rng: random.Random) -> Iterator[float]:
    """Those who are there from the beginning, then a Poisson process that keeps their number on average."""
    yield from [0.0] * max(1, round(options.peers * _swing(options.churn, 0.0)))
    if options.churn is Churn.NONE:
        return
    highest = 1.0 + DAY_NIGHT_SWING
    t = 0.0
    # thinning (Lewis & Shedler, 1979): draw at the highest rate, keep by the current one
    while (t := t + rng.expovariate(highest * options.peers / options.mean_stay)) < options.seconds:
        if rng.random() * highest < _swing(options.churn, t):
            yield t


def _swing(churn: Churn, t: float) -> float:
    """Arrivals at `t` seconds after midnight relative to the mean."""
    return 1.0 + DAY_NIGHT_SWING * math.cos(2 * math.pi * t / DAY) if churn is Churn.DAY_NIGHT else 1.0
