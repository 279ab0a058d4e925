"""The report as one HTML page that needs nothing else: a table and a plot in SVG."""

from __future__ import annotations

from html import escape

from finetune.report import BASELINE, OURS, Report, report_cells

_COLOURS = ("#1b6ca8", "#c1432e", "#3c8d40", "#8e5bb5", "#b8860b", "#217a79")
_GREY, _LIGHT = "#777777", "#bbbbbb"
_LEFT, _TOP, _ROW, _WIDTH = 110, 24, 46, 620
_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 75rem; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3rem .6rem; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left; white-space: normal; overflow-wrap: anywhere }
tr.ours td { font-weight: 600 } tr.published td { color: #555 }
.wide { overflow-x: auto } svg { max-width: 100%; height: auto }
"""


def render_report(report: Report) -> str:
    """The whole page."""
    header, rows = report_cells(report)
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        f'<tr class="{escape(row[1])}">' + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in rows
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Fine-tuning report</title>'
        f"<style>{_STYLE}</style></head><body><h1>Fine-tuning report</h1><p>{escape(report.note)} "
        "Where there are two figures, they are the task's two metrics; ± is the standard deviation over seeds "
        "of their mean.</p>"
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        f"{plot(report)}</body></html>\n"
    )


def plot(report: Report) -> str:
    """A row for every task: a dot with its deviation for each of our models, ticks for all others."""
    height = _TOP + _ROW * len(report.tasks) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 220} {height}" '
        f'width="{_LEFT + _WIDTH + 220}" height="{height}" role="img" aria-label="Scores by task">'
    ]
    for tick in range(0, 11, 2):
        x = _x(tick / 10)
        parts.append(f'<line x1="{x}" y1="{_TOP}" x2="{x}" y2="{height - 26}" stroke="#eee"/>')
        parts.append(_text(x, height - 8, f"{tick / 10:.1f}", "middle"))
    for number, task in enumerate(report.tasks):
        parts += _task_row(report, task, _TOP + _ROW * number + _ROW / 2)
    parts += _legend(report)
    return "".join((*parts, "</svg>"))


def _task_row(report: Report, task: str, y: float) -> list[str]:
    parts = [_text(_LEFT - 12, y + 5, task, "end")]
    others = [row for row in report.rows if row.kind != OURS and task in row.cells]
    for row in others:
        x = _x(row.cells[task].mean)
        colour = _GREY if row.kind == BASELINE else _LIGHT
        title = f"<title>{escape(row.name)}: {row.cells[task].mean:.3f}</title>"
        parts.append(
            f'<line x1="{x}" y1="{y - 13}" x2="{x}" y2="{y + 13}" stroke="{colour}" stroke-width="3">{title}</line>'
        )
    ours = [row for row in report.rows if row.kind == OURS]
    for number, row in enumerate(ours):
        if task in row.cells:
            offset = (number - (len(ours) - 1) / 2) * min(9.0, 26 / max(1, len(ours)))
            parts += _dot(row.cells[task].mean, row.cells[task].std, y + offset, _colour(number), row.name)
    return parts


def _dot(mean: float, std: float | None, y: float, colour: str, name: str) -> list[str]:
    title = f"<title>{escape(name)}: {mean:.3f}</title>"
    parts = [f'<circle cx="{_x(mean)}" cy="{y}" r="5" fill="{colour}">{title}</circle>']
    if std:
        low, high = _x(mean - std), _x(mean + std)
        parts.append(f'<line x1="{low}" y1="{y}" x2="{high}" y2="{y}" stroke="{colour}" stroke-width="2"/>')
    return parts


def _legend(report: Report) -> list[str]:
    ours = [row.name for row in report.rows if row.kind == OURS]
    entries = [(_colour(number), name) for number, name in enumerate(ours)]
    entries += [(_GREY, "baselines: majority, TF-IDF"), (_LIGHT, "published")]
    left = _LEFT + _WIDTH + 24
    return [
        part
        for number, (colour, name) in enumerate(entries)
        for part in (
            f'<rect x="{left}" y="{_TOP + 22 * number}" width="12" height="12" fill="{colour}"/>',
            _text(left + 18, _TOP + 11 + 22 * number, name if len(name) < 28 else f"…{name[-26:]}", "start"),
        )
    ]


def _x(value: float) -> float:
    """Scores from 0 to 1; a negative correlation is drawn at the left edge."""
    return round(_LEFT + _WIDTH * min(1.0, max(0.0, value)), 1)


def _colour(number: int) -> str:
    return _COLOURS[number % len(_COLOURS)]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x}" y="{y}" text-anchor="{anchor}" font-size="13" font-family="sans-serif">'
        f"{escape(text)}</text>"
    )
