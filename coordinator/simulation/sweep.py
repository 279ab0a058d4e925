"""The same peers and departures under different run specs: a table from which an operator chooses.

--sweep target_batch_size=1024,4096,16384 --sweep matchmaking_time=5,15
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from coordinator.simulation.calibration import Calibration
from coordinator.simulation.options import SimulationOptions
from coordinator.simulation.report import SimulationReport
from coordinator.simulation.simulator import simulate
from swarm.errors import BadInput
from swarm.spec import RunSpec, parse_spec

MAX_RUNS = 60
SECTIONS = ("training", "averaging", "leases")


class SweepPoint(BaseModel):
    """One run spec of a sweep: what was changed in it, and what came out."""

    model_config = ConfigDict(frozen=True)

    changed: dict[str, float]
    report: SimulationReport


def parse_sweeps(texts: Sequence[str]) -> dict[str, list[float]]:
    """Full key → values, from `key=value,value`; raises `BadInput`."""
    sweeps: dict[str, list[float]] = {}
    for text in texts:
        name, _equals, values = text.partition("=")
        try:
            sweeps[_full_key(name)] = [_number(value) for value in values.split(",")]
        except ValueError:
            raise BadInput(
                f"--sweep {text!r}: give a key and numbers, e.g. target_batch_size=1024,4096"
            ) from None
    count = 1
    for numbers in sweeps.values():
        count *= len(numbers)
    if count > MAX_RUNS:
        raise BadInput(f"--sweep: {count} combinations are too many, at most {MAX_RUNS}")
    return sweeps


def run_sweep(
    spec: RunSpec,
    options: SimulationOptions,
    sweeps: dict[str, list[float]],
    calibration: Calibration | None = None,
) -> Iterator[SweepPoint]:
    """Simulate every combination; raises `BadInput` for one that is no valid run spec, before the first run."""
    combinations = [dict(zip(sweeps, values, strict=True)) for values in itertools.product(*sweeps.values())]
    specs = [_changed(spec, combination) for combination in combinations]
    for combination, variant in zip(combinations, specs, strict=True):
        yield SweepPoint(changed=combination, report=simulate(variant, options, calibration))


def sweep_table(points: Sequence[SweepPoint]) -> str:
    """A Markdown table, one row a run spec."""
    keys = [key.split(".")[-1] for key in points[0].changed]
    header = (
        *keys,
        *(
            "steps/h",
            "step s",
            "p95 s",
            "samples/s",
            "goodput",
            "computing",
            "averaging",
            "waiting",
            "syncing",
        ),
        "partial",
    )
    rows = [(*(f"{value:g}" for value in point.changed.values()), *_cells(point.report)) for point in points]
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [header, tuple("-" * (width - 1) + ":" for width in widths), *rows]
    return "\n".join(
        "| " + " | ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) + " |"
        for line in lines
    )


def _cells(report: SimulationReport) -> tuple[str, ...]:
    step, time, rounds = report.step_seconds, report.time, report.rounds
    return (
        f"{report.steps_per_hour:.1f}",
        "-" if step.median is None else f"{step.median:.1f}",
        "-" if step.p95 is None else f"{step.p95:.1f}",
        f"{report.samples_per_second:.0f}",
        f"{report.goodput:.1%}",
        f"{time.computing:.1%}",
        f"{time.averaging:.1%}",
        f"{time.waiting:.1%}",
        f"{time.syncing:.1%}",
        f"{rounds.partial / rounds.total:.1%}" if rounds.total else "-",
    )


def _full_key(name: str) -> str:
    """`averaging.matchmaking_time` for `matchmaking_time`."""
    known = [
        f"{section}.{field}"
        for section in SECTIONS
        for field in type(getattr(RunSpec(name="x"), section)).model_fields
    ]
    found = [key for key in known if name in (key, key.split(".")[1])]
    if not found:
        raise BadInput(
            f"--sweep: unknown key `{name}`: keys of {', '.join(SECTIONS)} in the run spec can be varied, "
            "e.g. target_batch_size, matchmaking_time, allreduce_timeout, expiration"
        )
    return found[0]


def _number(text: str) -> float:
    return int(text) if text.strip().isdigit() else float(text)


def _changed(spec: RunSpec, changes: dict[str, float]) -> RunSpec:
    values: dict[str, Any] = spec.model_dump(mode="json")
    for key, value in changes.items():
        section, field = key.split(".")
        values[section][field] = value
    return parse_spec(values, origin="--sweep")
