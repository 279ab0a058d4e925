"""What a real storm tells about its machine, and the simulation of the same storm must be told.

How fast peers compute is an input of a simulation, not a prediction: on a shared machine it depends on how many compute
at once, and on what else runs there. The same holds for how long a process takes to start. Round times are not taken
from here, they are what the model has to predict.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

from coordinator.simulation.storm_report import StormEventKind, StormReport
from coordinator.simulation.timings import crowding

Pace = Callable[[int], float]


def pace_of(storm: StormReport) -> Pace:
    """Speed relative to when everybody computes, by how many compute.

    Measured from the steps where they tell how long they computed, interpolated between sizes that did not occur; by
    the number of cores where they do not.
    """
    speeds: dict[int, list[float]] = {}
    for step in storm.steps:
        if step.seconds.compute > 0 and step.samples > 0:
            speeds.setdefault(step.group, []).append(step.samples / step.seconds.compute)
    medians = {group: statistics.median(values) for group, values in speeds.items() if len(values) >= 3}
    everybody = len(storm.peers)
    if everybody not in medians:
        return lambda computing: crowding(everybody, storm.cores) / crowding(computing, storm.cores)
    return lambda computing: _between(medians, computing) / medians[everybody]


def speeds_of(storm: StormReport) -> dict[str, float]:
    """Samples per second of each peer: from its steps with everybody, else what it reported."""
    speeds = {peer.name: peer.samples_per_second for peer in storm.peers}
    for name in speeds:
        own = [
            step.samples / step.seconds.compute
            for step in storm.steps
            if step.peer == name and step.group == len(storm.peers) and step.seconds.compute > 0
        ]
        if len(own) >= 3 and statistics.median(own) > 0:
            speeds[name] = statistics.median(own)
    return speeds


def start_seconds(storm: StormReport) -> tuple[float, ...]:
    """From each start of a process to its having the state; empty if the storm did not note it."""
    waits = []
    for start in storm.events:
        if start.kind is StormEventKind.START:
            after = [event for event in storm.events if event.peer == start.peer and event.t > start.t]
            following = min(after, key=lambda event: event.t, default=None)
            if following is not None and following.kind is StormEventKind.SYNCED:
                waits.append(following.t - start.t)
    return tuple(waits)


def _between(medians: dict[int, float], computing: int) -> float:
    """Linear between the neighbours; the nearest one outside of all."""
    below = max((group for group in medians if group <= computing), default=min(medians))
    above = min((group for group in medians if group >= computing), default=max(medians))
    if above == below:
        return medians[below]
    share = (computing - below) / (above - below) if below < computing else 0.0
    return medians[below] + share * (medians[above] - medians[below])
