"""The loss over global steps as an SVG picture, for model cards: no plotting library, no fonts of its own.

The same palette as the page's charts: the training loss is a line, held-out losses are dots joined by a line.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

WIDTH, HEIGHT = 720, 320
LEFT, RIGHT, TOP, BOTTOM = 56, 16, 28, 40
TRAIN, HELDOUT = "#2b6cb0", "#c05621"
TICKS = 5
MAX_POINTS = 400

Curve = Sequence[tuple[int, float]]


def draw_loss_curve(train: Curve, heldout: Curve) -> str:
    """An SVG document; points are (global step, loss in nats), those that are not finite are left out.

    >>> draw_loss_curve([(0, 9.0), (10, 7.5)], [(10, 7.7)]).startswith("<svg")
    True
    """
    train, heldout = (
        sorted((step, loss) for step, loss in curve if math.isfinite(loss)) for curve in (train, heldout)
    )
    train = train[:: max(1, math.ceil(len(train) / MAX_POINTS))]
    steps = [step for step, _loss in (*train, *heldout)] or [0]
    losses = [loss for _step, loss in (*train, *heldout)] or [0.0]
    scale = _Scale(max(max(steps), 1), min(losses), max(losses))
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
            f'height="{HEIGHT}" role="img" font-family="sans-serif" font-size="12">',
            "<title>Loss over global steps</title>",
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
            *_axes(scale),
            _line(train, scale, TRAIN),
            _line(heldout, scale, HELDOUT),
            *(_dot(point, scale) for point in heldout),
            *_legend(),
            "</svg>\n",
        ]
    )


class _Scale:
    """From steps and losses to pixels, with round limits."""

    def __init__(self, last_step: int, lowest: float, highest: float):
        self.last_step = last_step
        self.tick = _round_up((highest - lowest) / TICKS or 1.0)
        self.low = math.floor(lowest / self.tick) * self.tick
        self.high = max(math.ceil(highest / self.tick) * self.tick, self.low + self.tick)

    def x(self, step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / self.last_step, 1)

    def y(self, loss: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (self.high - loss) / (self.high - self.low), 1)


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, … times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= value * 0.999)


def _axes(scale: _Scale) -> Iterator[str]:
    for number in range(round((scale.high - scale.low) / scale.tick) + 1):
        loss = scale.low + number * scale.tick
        y = scale.y(loss)
        yield f'<path d="M{LEFT} {y}H{WIDTH - RIGHT}" stroke="#e2e8f0"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end" fill="#4a5568">{loss:g}</text>'
    every = max(1, round(_round_up(scale.last_step / TICKS)))
    for step in range(0, scale.last_step + 1, every):
        yield (
            f'<text x="{scale.x(step)}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle" '
            f'fill="#4a5568">{step}</text>'
        )
    yield f'<text x="{(LEFT + WIDTH) / 2}" y="{HEIGHT - 6}" text-anchor="middle" fill="#4a5568">global step</text>'


def _line(curve: Curve, scale: _Scale, color: str) -> str:
    points = " ".join(f"{scale.x(step)},{scale.y(loss)}" for step, loss in curve)
    return f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.5"/>'


def _dot(point: tuple[int, float], scale: _Scale) -> str:
    return f'<circle cx="{scale.x(point[0])}" cy="{scale.y(point[1])}" r="2.5" fill="{HELDOUT}"/>'


def _legend() -> Iterator[str]:
    for x, color, words in ((LEFT, TRAIN, "training loss"), (LEFT + 120, HELDOUT, "held-out loss")):
        yield f'<rect x="{x}" y="10" width="12" height="4" fill="{color}"/>'
        yield f'<text x="{x + 18}" y="16" fill="#1a202c">{words}</text>'
