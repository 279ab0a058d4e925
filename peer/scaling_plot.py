"""Weak scaling as an SVG picture: samples/s of so many ranks against one rank, and the ideal; no plotting library."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from peer.scaling_report import ScalingReport, ScalingRow

WIDTH, HEIGHT = 640, 420
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 64, 44
COLORS = ("#2b6cb0", "#c05621", "#2f855a")
IDEAL = "#a0aec0"


def draw_scaling(report: ScalingReport) -> str:
    """An SVG document: a line per precision, a dashed one for what the times allow, a thin one for the ideal."""
    largest = max(report.counts)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" role="img" font-family="sans-serif" font-size="12">',
            f"<title>Weak scaling on {escape(report.device)}</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *_axes(report.counts, largest),
            _line([(1, 1.0), (largest, float(largest))], largest, IDEAL, "ideal"),
            *_curves(report, largest),
            *_legend(report),
            "</svg>\n",
        ]
    )


def _curves(report: ScalingReport, largest: int) -> Iterator[str]:
    for precision, color in zip(report.precisions, COLORS, strict=False):
        rows = [row for row in report.rows if row.precision == precision]
        allowed = [(row.ranks, report.allowed_scaling(row)) for row in rows]
        yield _line(allowed, largest, color, f"{precision}: the times allow", dashed=True)
        yield _line([(row.ranks, report.scaling(row)) for row in rows], largest, color, precision)
        yield from (_dot(report, row, largest, color) for row in rows)


def _x(ranks: float, largest: int) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * ranks / largest, 1)


def _y(scaling: float, largest: int) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - min(scaling, largest) / largest), 1)


def _axes(counts: list[int], largest: int) -> Iterator[str]:
    for count in counts:
        x, y = _x(count, largest), _y(count, largest)
        yield f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#e2e8f0"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end" fill="#4a5568">{count}</text>'
        yield f'<text x="{x}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" fill="#4a5568">{count}</text>'
    middle = (LEFT + WIDTH) / 2
    yield f'<text x="{middle}" y="{HEIGHT - 6}" text-anchor="middle" fill="#4a5568">ranks</text>'


def _line(
    points: list[tuple[int, float]], largest: int, color: str, title: str, *, dashed: bool = False
) -> str:
    path = " ".join(f"{_x(ranks, largest)},{_y(scaling, largest)}" for ranks, scaling in points)
    dashes = ' stroke-dasharray="2 4"' if dashed else ""
    return (
        f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"{dashes}>'
        f"<title>{escape(title)}</title></polyline>"
    )


def _dot(report: ScalingReport, row: ScalingRow, largest: int, color: str) -> str:
    scaling = report.scaling(row)
    words = f"{row.ranks} ranks in {row.precision}: {row.samples_per_second:.2f} samples/s, {scaling:.2f}/{row.ranks}"
    x, y = _x(row.ranks, largest), _y(scaling, largest)
    return f'<circle cx="{x}" cy="{y}" r="3" fill="{color}"><title>{escape(words)}</title></circle>'


def _legend(report: ScalingReport) -> Iterator[str]:
    entries = [*zip(report.precisions, COLORS, strict=False), ("ideal", IDEAL)]
    for number, (name, color) in enumerate(entries):
        x = LEFT + 90 * number
        yield f'<rect x="{x}" y="34" width="12" height="4" fill="{color}"/>'
        yield f'<text x="{x + 18}" y="40" fill="#1a202c">{escape(name)}</text>'
    words = f"samples/s of one rank, times; dotted: what the times allow. {report.device}, {report.backend}"
    yield f'<text x="{LEFT}" y="20" fill="#1a202c">{escape(words)}</text>'
