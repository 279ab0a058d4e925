"""Tables as plain text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from data_prep.counted import counted
from finetune.summary import mean_std_text


def summary_table(summary: Mapping[str, Any]) -> str:
    """One run: a row for every split of the model and of the baselines, a column for every metric."""
    names = list(dict.fromkeys(name for scores in summary["scores"].values() for name in scores))
    seeds = len(summary["seeds"])
    rows = [
        ("this model", split, *(mean_std_text(scores[name]) if name in scores else "" for name in names))
        for split, scores in summary["scores"].items()
    ]
    for baseline, splits in summary["baselines"].items():
        rows += [
            (baseline, split, *(f"{scores[name]:.3f}" if name in scores else "" for name in names))
            for split, scores in splits.items()
        ]
    title = f"{summary['task']}: {summary['model']}, {counted(seeds, 'seed')}"
    return title + "\n" + text_table(("", "split", *names), rows)


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns padded to their widest cell; the first two to the left, figures to the right."""
    lines = [header, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
    rendered = [
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join((rendered[0], "  ".join("-" * width for width in widths), *rendered[1:]))
