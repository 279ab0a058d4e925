"""Timing of competitors in turns, in one process: what a shared machine's noise leaves comparable."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Seconds = dict[str, list[float]]


def time_in_turns(
    competitors: Mapping[str, Callable[[], None]],
    rounds: int,
    warmup: int = 1,
    *,
    prepare: Mapping[str, Callable[[], object]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Seconds:
    """Seconds of each call, one call of each competitor a round, after `warmup` untimed rounds.

    :param prepare: called before a competitor's every turn, untimed
    :param clock: `time.process_time` counts only our own work, where other programs want the processor too
    """
    seconds: Seconds = {name: [] for name in competitors}
    for index in range(warmup + rounds):
        for name, call in competitors.items():
            if prepare and name in prepare:
                prepare[name]()
            started = clock()
            call()
            if index >= warmup:
                seconds[name].append(clock() - started)
    return seconds


def median_ratio(seconds: Seconds, baseline: str, name: str) -> float:
    """How many times faster `name` is than `baseline`: the median over the rounds."""
    return statistics.median(b / t for b, t in zip(seconds[baseline], seconds[name], strict=True))


def print_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """A Markdown table on stdout."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    for row in (header, tuple("-" * width for width in widths), *rows):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def save_bars(path: str, title: str, values: Mapping[str, float], label: str) -> None:
    """A horizontal bar chart; needs matplotlib."""
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 0.5 * len(values) + 1.2))
    names = list(reversed(values))
    bars = axes.barh(names, [values[name] for name in names], color="#3b6ea5")
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set_xlabel(label)
    axes.set_title(title)
    axes.margins(x=0.12)
    figure.tight_layout()
    figure.savefig(path)
