"""The same peers and the same blows, real and simulated, side by side.

One real storm is one draw of chance, so the simulation is run with several seeds: where the real figure lies outside
of their range, the model is wrong there, not unlucky.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

from pydantic import BaseModel, ConfigDict

from coordinator.simulation.calibration import Calibration, load_calibration
from coordinator.simulation.churn import script_of_storm
from coordinator.simulation.report import SimulationReport, quantile
from coordinator.simulation.simulator import run_script
from coordinator.simulation.storm_calibration import pace_of, speeds_of, start_seconds
from coordinator.simulation.storm_report import StormEventKind, StormReport
from coordinator.simulation.timings import fit

SEEDS = 9


class ComparedFigure(BaseModel):
    """One figure: real, and the simulations' median, lowest and highest; None where it could not be told."""

    model_config = ConfigDict(frozen=True)

    name: str
    real: float | None
    simulated: float | None
    lowest: float | None
    highest: float | None

    @property
    def agrees(self) -> bool:
        """Whether the real figure is within the simulations' range."""
        if self.real is None or self.lowest is None or self.highest is None:
            return self.real is self.simulated is None
        return self.lowest <= self.real <= self.highest


def compare(storm: StormReport, calibration: Calibration | None = None) -> list[ComparedFigure]:
    """Simulate a real storm's peers, kills and run spec, and set the figures beside the real ones."""
    timings = fit(calibration or load_calibration())
    if storm.cores:
        timings = timings.on_shared_machine(storm.cores)
    timings = replace(timings, join_seconds=start_seconds(storm) or timings.join_seconds)
    script, pace = script_of_storm(storm, speeds_of(storm)), pace_of(storm)
    simulated = [
        run_script(storm.spec, script, timings, storm.seconds, seed, storm.grace, pace)
        for seed in range(SEEDS)
    ]
    intervals = _intervals(storm)
    recoveries, rejoins = _recoveries(storm), _rejoins(storm)
    rows: list[tuple[str, float | None, Callable[[SimulationReport], float | None]]] = [
        ("global steps", storm.steps_committed, lambda one: one.global_steps),
        ("step time, median, s", quantile(intervals, 0.5), lambda one: one.step_seconds.median),
        ("step time, 95 %, s", quantile(intervals, 0.95), lambda one: one.step_seconds.p95),
        (
            "samples a step",
            storm.samples_in_steps / max(1, storm.steps_committed),
            lambda one: one.samples_per_step,
        ),
        ("goodput", storm.goodput, lambda one: one.goodput),
        ("partial rounds", storm.rounds_partial, lambda one: one.rounds.partial),
        ("failed rounds", storm.rounds_failed, lambda one: one.rounds.failed),
        ("next step after a kill, median, s", quantile(recoveries, 0.5), _after_kill_median),
        ("next step after a kill, worst, s", quantile(recoveries, 1.0), _after_kill_worst),
        ("start to first step, median, s", quantile(rejoins, 0.5), lambda one: one.recovery.joining_median),
    ]
    return [_figure(name, real, [read(one) for one in simulated]) for name, real, read in rows]


def comparison_table(figures: Sequence[ComparedFigure]) -> str:
    """A Markdown table."""
    header = ("", "real", "simulated", f"range of {SEEDS}", "agrees")
    rows = [
        (
            figure.name,
            _text(figure.real),
            _text(figure.simulated),
            f"{_text(figure.lowest)} - {_text(figure.highest)}",
            "yes" if figure.agrees else "no",
        )
        for figure in figures
    ]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, tuple("-" * width for width in widths), *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _figure(name: str, real: float | None, simulated: Sequence[float | None]) -> ComparedFigure:
    told = [value for value in simulated if value is not None]
    return ComparedFigure(
        name=name,
        real=real,
        simulated=statistics.median(told) if told else None,
        lowest=min(told, default=None),
        highest=max(told, default=None),
    )


def _committed(storm: StormReport) -> list[float]:
    """When each global step was first made by anybody."""
    first: dict[int, float] = {}
    for step in storm.steps:
        first[step.global_step] = min(step.t, first.get(step.global_step, step.t))
    return [first[step] for step in sorted(first)]


def _intervals(storm: StormReport) -> list[float]:
    committed = _committed(storm)
    return [later - earlier for earlier, later in pairwise(committed)]


def _recoveries(storm: StormReport) -> list[float]:
    """From each kill to the next step of anybody."""
    kills = [event.t for event in storm.events if event.kind is StormEventKind.KILL]
    committed = _committed(storm)
    return [min(after) - kill for kill in kills if (after := [t for t in committed if t > kill])]


def _rejoins(storm: StormReport) -> list[float]:
    """From each start of a process to its first step."""
    waits = []
    for event in storm.events:
        if event.kind is StormEventKind.START:
            steps = [step.t for step in storm.steps if step.peer == event.peer and step.t > event.t]
            kills = [
                other.t
                for other in storm.events
                if (other.peer, other.kind) == (event.peer, StormEventKind.KILL) and other.t > event.t
            ]
            if steps and min(steps) < min(kills, default=storm.seconds + 1):
                waits.append(min(steps) - event.t)
    return waits


def _after_kill_median(report: SimulationReport) -> float | None:
    return report.recovery.after_kill_median


def _after_kill_worst(report: SimulationReport) -> float | None:
    return report.recovery.after_kill_worst


def _text(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.4g}"
