"""The charts of `data-prep stats`: plain boxes in HTML, no script; the colours are those of `stats_style.py`."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

import numpy as np

_COLOURS = 8  # of the style sheet; sources beyond share the last
_LABELLED = 0.12  # of the bar: a narrower part has no room for its name


def share_bar(sources: Sequence[dict[str, Any]]) -> str:
    """One bar, divided by the sources' shares of the words."""
    parts = "".join(
        f'<div style="flex:{max(row["share"], 0.002):.4f};background:{colour(index)}" '
        f'title="{html.escape(row["source"])}: {row["share"]:.1%}">'
        f"{html.escape(row['source']) if row['share'] > _LABELLED else ''}</div>"
        for index, row in enumerate(sources)
    )
    return f'<div class=share role="img" aria-label="share of words by source">{parts}</div>'


def legend(sources: Sequence[dict[str, Any]]) -> str:
    chips = "".join(
        f"<span>{swatch(index)}{html.escape(row['source'])}</span>" for index, row in enumerate(sources)
    )
    return f"<div class=legend>{chips}</div>"


def swatch(index: int) -> str:
    return f'<i style="background:{colour(index)}"></i>'


class LengthScale:
    """A logarithmic scale that holds the lengths of all sources.

    >>> scale = LengthScale(stats["sources"])
    >>> scale.ticks(), scale.range(row["length_quantiles"])
    """

    def __init__(self, sources: Sequence[dict[str, Any]]) -> None:
        ends = [row["length_quantiles"][name] for row in sources for name in ("0.05", "0.95")]
        self._low, self._high = np.log10(max(1, min(ends)) / 1.5), np.log10(max(1, *ends) * 1.5)

    def ticks(self) -> str:
        """Powers of ten."""
        powers = range(int(np.ceil(self._low)), int(np.floor(self._high)) + 1)
        marks = (
            f'<span style="left:{self._at(10**power):.1f}%">{short(10**power)}</span>' for power in powers
        )
        return f"<div class=ticks>{''.join(marks)}</div>"

    def range(self, quantiles: dict[str, int], index: int) -> str:
        """A line from 5 to 95 %, a box around the middle half, a mark at the median."""
        low, first, middle, last, high = (
            self._at(quantiles[name]) for name in ("0.05", "0.25", "0.5", "0.75", "0.95")
        )
        boxes = (
            f'<b class=line style="left:{low:.1f}%;right:{100 - high:.1f}%"></b>'
            f'<b class=box style="left:{first:.1f}%;right:{100 - last:.1f}%;background:{colour(index)}"></b>'
            f'<b class=median style="left:{middle:.1f}%"></b>'
        )
        told = (number(quantiles[name]) for name in ("0.05", "0.5", "0.95"))
        title = "5 %: {}, median {}, 95 %: {}".format(*told)
        return f'<div class=range role="img" aria-label="{title}" title="{title}">{boxes}</div>'

    def _at(self, length: float) -> float:
        share = (np.log10(max(1, length)) - self._low) / (self._high - self._low)
        return float(100 * np.clip(share, 0, 1))


def lengths_chart(sources: Sequence[dict[str, Any]], edges: Sequence[int]) -> str:
    """Stacked columns, one per length class that occurs, coloured by source, their height above them."""
    counts = np.array([row["length_histogram"] for row in sources])
    used = np.flatnonzero(counts.sum(axis=0))
    top = int(counts.sum(axis=0).max())
    columns = []
    for column in range(int(used[0]), int(used[-1]) + 1):
        boxes = "".join(
            f'<div style="height:{100 * int(count) / top:.2f}%;background:{colour(index)}"></div>'
            for index, count in enumerate(counts[:, column])
            if count
        )
        title = "\n".join(
            f"{row['source']}: {number(int(count))}"
            for row, count in zip(sources, counts[:, column], strict=True)
            if count
        )
        total = int(counts[:, column].sum())
        label = f"&lt;{edges[0]}" if column == 0 else short(edges[column - 1])
        columns.append(
            f'<div class=column title="{html.escape(title)}"><div class=stack>{boxes}'
            f"<em>{number(total) if total else ''}</em></div><span>{label}</span></div>"
        )
    return f'<div class=columns role="img" aria-label="documents by length">{"".join(columns)}</div>'


def funnel(steps: Sequence[tuple[str, int]]) -> str:
    """A bar for every step: how many documents there were after it, and how many fewer than before."""
    top = max(1, *(count for _, count in steps))
    rows, before = [], None
    for name, count in steps:
        fewer = "" if before is None or count == before else f"<small>−{number(before - count)}</small>"
        rows.append(
            f"<div class=bar><span>{html.escape(name)}</span>"
            f'<div><div style="width:{100 * count / top:.1f}%"></div></div>'
            f"<span>{number(count)} {fewer}</span></div>"
        )
        before = count
    return "".join(rows)


def bars(counts: dict[str, int]) -> str:
    """A bar for every name, the longest first."""
    top = max(counts.values())
    return "".join(
        f"<div class=bar><span>{html.escape(name)}</span>"
        f'<div><div style="width:{100 * count / top:.1f}%"></div></div><span>{number(count)}</span></div>'
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
    )


def colour(index: int) -> str:
    return f"var(--c{min(index, _COLOURS - 1)})"


def number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def short(value: int) -> str:
    """1k of 1000 and of 1024, 2M of two millions: what fits below a column."""
    if value < 1000:
        return str(value)
    return f"{value // 1000}k" if value < 1_000_000 else f"{value // 1_000_000}M"
