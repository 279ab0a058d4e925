"""The page with a simulation's or a sweep's curves: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from coordinator.simulation.charts import Line, line_chart, share_bar
from coordinator.simulation.report import SimulationReport, TimelineSlice, describe_report
from coordinator.simulation.sweep import SweepPoint, sweep_table
from swarm.errors import OperationFailed

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font: 14px/1.45 system-ui, sans-serif; max-width: 820px; margin: 2rem auto; padding: 0 1rem;
        color: #1e293b; background: #fff; }}
h1 {{ font-size: 1.3rem; }} h2 {{ font-size: 1rem; margin: 1.6rem 0 .3rem; }}
svg {{ width: 100%; display: block; }} svg text {{ font-size: 11px; fill: #64748b; }}
.grid {{ stroke: #e2e8f0; }} pre {{ overflow-x: auto; font-size: 12px; background: #f8fafc; padding: .8rem; }}
.legend {{ margin: .2rem 0; }} .legend span {{ margin-right: 1rem; white-space: nowrap; }}
.legend i {{ display: inline-block; width: .8em; height: .8em; margin-right: .3em; border-radius: 2px; }}
</style>
<h1>{title}</h1>
{body}
</html>
"""


def write_plot(path: Path, title: str, points: Sequence[SweepPoint] | SimulationReport) -> None:
    """Write the page of one report, or of a sweep's points; raises `OperationFailed` if that is impossible."""
    body = _report_body(points) if isinstance(points, SimulationReport) else _sweep_body(points)
    try:
        path.write_text(PAGE.format(title=escape(title), body=body), encoding="utf-8")
    except OSError as error:
        raise OperationFailed(
            f"plot {path} cannot be written: {error.strerror}; choose another path"
        ) from None


def _report_body(report: SimulationReport) -> str:
    time = report.time
    return "\n".join(
        [
            f"<pre>{escape(describe_report(report))}</pre>",
            "<h2>Where the peers' time goes</h2>",
            share_bar(
                ["computing", "averaging", "waiting", "syncing"],
                [time.computing, time.averaging, time.waiting, time.syncing],
            ),
            "<h2>Peers online</h2>",
            _over_time(report, lambda one: one.peers_online),
            "<h2>Samples per second, in global steps</h2>",
            _over_time(report, lambda one: one.samples_per_second),
            "<h2>Step time, median, s</h2>",
            _over_time(report, lambda one: one.step_seconds),
        ]
    )


def _over_time(report: SimulationReport, read: Callable[[TimelineSlice], float | None]) -> str:
    return line_chart([Line("", [(one.hour, read(one)) for one in report.timeline])], x_label="hours")


def _sweep_body(points: Sequence[SweepPoint]) -> str:
    """The first key along the x axis, a curve for every combination of the others."""
    axis = next(iter(points[0].changed))
    charts: list[tuple[str, Callable[[SimulationReport], float | None]]] = [
        ("Samples per second, in global steps", lambda one: one.samples_per_second),
        ("Goodput", lambda one: one.goodput),
        ("Utilisation: share of online time spent computing", lambda one: one.utilisation),
        ("Step time, median, s", lambda one: one.step_seconds.median),
        ("Share of online time spent joining and fetching the state", lambda one: one.time.syncing),
    ]
    parts = [f"<pre>{escape(sweep_table(points))}</pre>"]
    for title, read in charts:
        parts += [f"<h2>{escape(title)}</h2>", _against(points, axis, read)]
    return "\n".join(parts)


def _against(
    points: Sequence[SweepPoint], axis: str, read: Callable[[SimulationReport], float | None]
) -> str:
    curves: dict[str, list[tuple[float, float | None]]] = {}
    for point in points:
        others = ", ".join(
            f"{key.split('.')[-1]} {value:g}" for key, value in point.changed.items() if key != axis
        )
        curves.setdefault(others, []).append((point.changed[axis], read(point.report)))
    lines = [Line(name, sorted(curve, key=lambda one: one[0])) for name, curve in curves.items()]
    return line_chart(lines, x_label=axis, logarithmic=all(x > 0 for x, _y in lines[0].points), dots=True)
