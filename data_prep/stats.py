"""What a corpus folder holds: counts per source, lengths, what earlier steps removed; JSON and one HTML page."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from data_prep.corpus_folder import read_summary, read_tables
from data_prep.errors import DataError
from data_prep.folders import finished_folder
from data_prep.stats_page import render

_WORD = r"[\p{L}\p{N}]+"
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LENGTH_EDGES = [2**power for power in range(3, 18)]


@dataclass
class SourceCount:
    """Counts of one source; lengths are in words."""

    documents: int = 0
    words: int = 0
    characters: int = 0
    bytes: int = 0
    lengths: list[np.ndarray] = field(default_factory=list)


def corpus_stats(input_dir: str | Path, history: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Count everything in ``input_dir``; ``history`` are folders of earlier steps, to be told of.

    Raises ``DataError`` when one of them cannot be read.
    """
    sources: dict[str, SourceCount] = {}
    for batch in read_tables(input_dir):
        text = batch.column(0)
        words = pc.count_substring_regex(text, _WORD).to_numpy(zero_copy_only=False)
        characters = pc.utf8_length(text).to_numpy(zero_copy_only=False)
        size = pc.binary_length(text).to_numpy(zero_copy_only=False)
        names = np.asarray(batch.column(1).to_pylist())
        for name in np.unique(names):
            mine, count = names == name, sources.setdefault(str(name), SourceCount())
            count.documents += int(mine.sum())
            count.words += int(words[mine].sum())
            count.characters += int(characters[mine].sum())
            count.bytes += int(size[mine].sum())
            count.lengths.append(words[mine])
    if not sources:
        raise DataError(f"{input_dir} holds no documents")
    history = list(history)
    if missing := [str(folder) for folder in history if not read_summary(folder)]:
        raise DataError(f"{missing[0]} has no summary of a step: --history names folders of earlier steps")
    steps = [summary for folder in [*history, input_dir] if (summary := read_summary(folder))]
    return {"name": Path(input_dir).resolve().name, **_as_json(sources, steps)}


def write_report(stats: dict[str, Any], output_dir: str | Path) -> Path:
    """Write ``stats.json`` and ``stats.html``; return the page's path."""
    with finished_folder(Path(output_dir)) as folder:
        (folder / "stats.json").write_text(json.dumps(stats, ensure_ascii=False, indent=1) + "\n", "utf-8")
        (folder / "stats.html").write_text(render(stats), "utf-8")
    return Path(output_dir) / "stats.html"


def _as_json(sources: dict[str, SourceCount], steps: list[dict[str, Any]]) -> dict[str, Any]:
    total = sum(count.words for count in sources.values())
    rows = [
        {
            "source": name,
            "documents": count.documents,
            "words": count.words,
            "characters": count.characters,
            "bytes": count.bytes,
            "share": round(count.words / max(1, total), 6),
            "length_quantiles": _quantiles(np.concatenate(count.lengths)),
            "length_histogram": _histogram(np.concatenate(count.lengths)),
        }
        for name, count in sorted(sources.items(), key=lambda item: -item[1].words)
    ]
    totals = {
        name: sum(getattr(count, name) for count in sources.values())
        for name in ("documents", "words", "characters", "bytes")
    }
    return {"totals": totals, "sources": rows, "length_edges": _LENGTH_EDGES, "steps": steps}


def _quantiles(lengths: np.ndarray) -> dict[str, int]:
    return {
        f"{quantile:g}": int(value)
        for quantile, value in zip(_QUANTILES, np.quantile(lengths, _QUANTILES), strict=True)
    }


def _histogram(lengths: np.ndarray) -> list[int]:
    """Documents per length class: under the first edge, between edges, over the last."""
    return np.bincount(
        np.searchsorted(_LENGTH_EDGES, lengths, side="right"), minlength=len(_LENGTH_EDGES) + 1
    ).tolist()
