"""Line charts as SVG text: enough for a report, without a plotting library on the operator's machine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 220
LEFT, RIGHT, TOP, BOTTOM = 64, 12, 12, 36
COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#64748b")

Point = tuple[float, float | None]


@dataclass(frozen=True)
class Line:
    """One named curve; a point without a value is a gap."""

    name: str
    points: Sequence[Point]


def line_chart(lines: Sequence[Line], *, x_label: str, logarithmic: bool = False, dots: bool = False) -> str:
    """Curves over a common x axis; y begins at zero.

    :param logarithmic: of the x axis, whose values must then be positive
    :param dots: mark every point
    """
    xs = [x for line in lines for x, _y in line.points]
    ys = [y for line in lines for _x, y in line.points if y is not None]
    if not xs or not ys:
        return "<p>nothing to show</p>"
    scale = _Scale(min(xs), max(xs), max(ys) or 1.0, logarithmic)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">', *_axes(scale, xs, x_label)]
    for line, colour in zip(lines, COLOURS, strict=False):
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>'
            for points in _segments(line.points, scale)
        ]
        if dots:
            parts += [
                f'<circle cx="{scale.x(x):.1f}" cy="{scale.y(y):.1f}" r="3" fill="{colour}"/>'
                for x, y in line.points
                if y is not None
            ]
    parts.append("</svg>")
    return "".join(parts) + legend([line.name for line in lines])


def legend(names: Sequence[str]) -> str:
    """Names with their colours; none for a single unnamed curve."""
    items = [
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in zip(names, COLOURS, strict=False)
        if name
    ]
    return f'<p class="legend">{"".join(items)}</p>'


def share_bar(names: Sequence[str], shares: Sequence[float]) -> str:
    """One bar of parts that sum to 1."""
    parts, left = [], 0.0
    for share, colour in zip(shares, COLOURS, strict=False):
        parts.append(
            f'<rect x="{left * WIDTH:.1f}" width="{share * WIDTH:.1f}" height="24" fill="{colour}"/>'
        )
        left += share
    labelled = [f"{name} {share:.1%}" for name, share in zip(names, shares, strict=True)]
    return f'<svg viewBox="0 0 {WIDTH} 24" role="img">{"".join(parts)}</svg>{legend(labelled)}'


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    top: float
    logarithmic: bool

    def x(self, value: float) -> float:
        low, high, at = (
            (math.log(self.low), math.log(self.high), math.log(value))
            if self.logarithmic
            else (self.low, self.high, value)
        )
        share = (at - low) / (high - low) if high > low else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        return HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)


def _axes(scale: _Scale, xs: Sequence[float], x_label: str) -> list[str]:
    parts = []
    for value in _ticks(scale.top):
        y = scale.y(value)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    distinct = sorted(set(xs))
    marks = distinct if len(distinct) <= 8 else [tick for tick in _ticks(scale.high) if tick >= scale.low]
    for value in marks:
        position = f'x="{scale.x(value):.1f}" y="{HEIGHT - BOTTOM + 16}"'
        parts.append(f'<text {position} text-anchor="middle">{value:.7g}</text>')
    parts.append(
        f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 4}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return parts


def _ticks(top: float) -> list[float]:
    """About five round numbers from 0 to `top`."""
    raw = top / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    return [round(index * step, 12) for index in range(int(top / step + 1e-9) + 1)]


def _segments(points: Sequence[Point], scale: _Scale) -> list[str]:
    """Coordinates of the pieces between gaps."""
    segments: list[list[str]] = [[]]
    for x, y in points:
        if y is None:
            segments.append([])
        else:
            segments[-1].append(f"{scale.x(x):.1f},{scale.y(y):.1f}")
    return [" ".join(segment) for segment in segments if segment]
