"""`finetune report`: runs of several models and tasks as one table, beside baselines and published figures.

Ours are measured on validation sets, for the benchmarks' test labels are hidden; published figures are of
the test sets. The report says so wherever it shows both.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from finetune.published import PUBLISHED, Published
from finetune.run_directory import find_summaries
from finetune.tasks import SUPERGLUE, TASKS

OURS, BASELINE, PUBLISHED_KIND = "ours", "baseline", "published"
NOTE = "Ours and the baselines: validation sets (LiDiRus: its one set). Published: the leaderboards' hidden test sets."
_SUPERGLUE_NAMES = tuple(task.layout.task for task in SUPERGLUE)


@dataclass(frozen=True)
class Cell:
    """Mean and deviation of a task's one figure, and of each metric it is the mean of."""

    mean: float
    std: float | None
    metrics: dict[str, float]
    seeds: int | None = None


@dataclass(frozen=True)
class ReportRow:
    """One system. `overall` is the mean over the nine tasks of Russian SuperGLUE; None unless all are there."""

    name: str
    kind: str
    cells: dict[str, Cell] = field(default_factory=dict)
    overall: float | None = None


@dataclass(frozen=True)
class Report:
    """The table: its columns (tasks) and rows (systems)."""

    tasks: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    note: str = NOTE

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def build_report(runs: Path) -> Report:
    """The table of all finished runs below a directory."""
    summaries = find_summaries(runs)
    ours: dict[str, dict[str, Cell]] = {}
    floors: dict[str, dict[str, Cell]] = {}
    for path, summary in summaries:
        task = str(summary["task"])
        name = _row_name(ours, summary, path, runs)
        if summary["model"] not in summary["baselines"]:
            ours.setdefault(name, {})[task] = _cell_of_run(summary)
        for baseline, scores in summary["baselines"].items():
            floors.setdefault(baseline, {}).setdefault(task, _cell_of_baseline(summary, scores))
    present = {summary["task"] for _, summary in summaries}
    tasks = tuple(task for task in TASKS if task in present)
    rows = [ReportRow(name, OURS, cells, _overall(cells)) for name, cells in ours.items()]
    rows += [ReportRow(name, BASELINE, cells, _overall(cells)) for name, cells in floors.items()]
    rows += [row for row in map(_published_row, PUBLISHED) if set(row.cells) & present]
    return Report(tasks, tuple(rows))


def _row_name(
    ours: Mapping[str, Mapping[str, Cell]], summary: Mapping[str, Any], path: Path, root: Path
) -> str:
    """The model's name; with its directory where another run of the same model and task has it already."""
    model = str(summary["model"])
    if summary["task"] in TASKS and TASKS[summary["task"]].trained_as:
        model = _trained_from(summary) or model
    taken = summary["task"] in ours.get(model, {})
    return f"{model} ({path.relative_to(root)})" if taken else model


def _trained_from(summary: Mapping[str, Any]) -> str | None:
    """The model that a diagnostic's fine-tuned models came from, if their run's summary is still there."""
    for model in summary.get("models", ()):
        run = Path(model).parent.parent
        if (run / "summary.json").is_file():
            return str(find_summaries(run)[0][1]["model"])
    return None


def _cell_of_run(summary: Mapping[str, Any]) -> Cell:
    scores = summary["scores"][summary["reported"]]
    metrics = {name: scores[name]["mean"] for name in summary["metrics"]}
    return Cell(summary["main"]["mean"], summary["main"]["std"], metrics, len(summary["seeds"]))


def _cell_of_baseline(summary: Mapping[str, Any], scores: Mapping[str, Mapping[str, float]]) -> Cell:
    metrics = {name: scores[summary["reported"]][name] for name in summary["metrics"]}
    return Cell(statistics.fmean(metrics.values()), None, metrics)


def _published_row(published: Published) -> ReportRow:
    cells = {
        task: Cell(statistics.fmean(figures), None, dict(zip(TASKS[task].metrics, figures, strict=True)))
        for task, figures in published.tasks.items()
    }
    return ReportRow(published.name, PUBLISHED_KIND, cells, published.overall)


def _overall(cells: Mapping[str, Cell]) -> float | None:
    if not set(_SUPERGLUE_NAMES) <= set(cells):
        return None
    return statistics.fmean(cells[task].mean for task in _SUPERGLUE_NAMES)


def cell_text(cell: Cell | None) -> str:
    """`0.612 ± 0.013`, `0.333 / 0.509` for two metrics, nothing where there is no figure."""
    if cell is None:
        return ""
    figures = " / ".join(f"{value:.3f}" for value in cell.metrics.values())
    return figures if cell.std is None else f"{figures} ± {cell.std:.3f}"


def report_cells(report: Report) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Header and rows of the table as text."""
    header = ("", "kind", *report.tasks, "overall")
    rows = [
        (
            row.name,
            row.kind,
            *(cell_text(row.cells.get(task)) for task in report.tasks),
            "" if row.overall is None else f"{row.overall:.3f}",
        )
        for row in report.rows
    ]
    return header, rows
