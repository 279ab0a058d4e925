"""What a corpus folder holds: counts per source, lengths, what earlier steps removed; JSON and one HTML page.

The page stands alone: its charts are inline SVG, no script and no network.
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc

from data_prep.corpus_folder import read_summary, read_tables
from data_prep.errors import DataError
from data_prep.folders import finished_folder

_WORD = r"[\p{L}\p{N}]+"
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
_LENGTH_EDGES = [2**power for power in range(3, 18)]
_COLOURS = ("#2f6690", "#d1495b", "#edae49", "#66a182", "#6a4c93", "#8d5524", "#3a7d7c", "#9a9a9a")


@dataclass
class SourceCount:
    """Counts of one source; lengths are in words."""

    documents: int = 0
    words: int = 0
    characters: int = 0
    bytes: int = 0
    lengths: list[np.ndarray] = field(default_factory=list)


def corpus_stats(input_dir: str | Path, history: Iterable[str | Path] = ()) -> dict[str, Any]:
    """Count everything in ``input_dir``; ``history`` are folders of earlier steps, to be told of."""
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
    steps = [summary for folder in [*history, input_dir] if (summary := read_summary(folder))]
    return _as_json(sources, steps)


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


def render(stats: dict[str, Any]) -> str:
    """The HTML page."""
    totals, sources = stats["totals"], stats["sources"]
    head = " · ".join(
        f"<b>{_number(totals[key])}</b> {label}"
        for key, label in (("documents", "documents"), ("words", "words"), ("bytes", "bytes of UTF-8"))
    )
    sections = [
        f"<p class=total>{head}, {len(sources)} sources</p>",
        "<h2>Share of words by source</h2>",
        _share_bar(sources),
        _table(sources),
        "<h2>Length of documents, in words</h2>",
        _lengths_chart(sources, stats["length_edges"]),
        *_steps(stats["steps"]),
    ]
    return _PAGE.format(body="\n".join(sections))


def _share_bar(sources: Sequence[dict[str, Any]]) -> str:
    parts, x = [], 0.0
    for index, row in enumerate(sources):
        width = 1000 * row["share"]
        title = html.escape(f"{row['source']}: {row['share']:.1%}")
        parts.append(_rectangle(x, 0, max(width - 2, 0.5), 44, index, title))
        if width > 90:
            parts.append(f'<text x="{x + 8:.1f}" y="27" fill="#fff">{html.escape(row["source"])}</text>')
        x += width
    return f'<svg viewBox="0 0 1000 44" role="img">{"".join(parts)}</svg>'


def _table(sources: Sequence[dict[str, Any]]) -> str:
    rows = "".join(
        f'<tr><td><i style="background:{_colour(index)}"></i>{html.escape(row["source"])}</td>'
        f"<td>{_number(row['documents'])}</td><td>{_number(row['words'])}</td><td>{row['share']:.1%}</td>"
        f"<td>{_number(row['length_quantiles']['0.5'])}</td>"
        f"<td>{_number(row['length_quantiles']['0.05'])} – "
        f"{_number(row['length_quantiles']['0.95'])}</td></tr>"
        for index, row in enumerate(sources)
    )
    names = ("source", "documents", "words", "share", "median words", "5 % – 95 %")
    return f"<table><tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>{rows}</table>"


def _lengths_chart(sources: Sequence[dict[str, Any]], edges: Sequence[int]) -> str:
    """Stacked columns, one per length class, coloured by source."""
    columns = np.array([row["length_histogram"] for row in sources])
    top, parts = max(1, int(columns.sum(axis=0).max())), []
    width = 960 / columns.shape[1]
    for column in range(columns.shape[1]):
        y = 220.0
        for index, count in enumerate(columns[:, column]):
            height = 200 * int(count) / top
            y -= height
            title = html.escape(f"{sources[index]['source']}: {_number(int(count))}")
            parts.append(_rectangle(20 + column * width, y, width - 3, height, index, title))
        label = f"&lt;{edges[0]}" if column == 0 else f"{edges[column - 1]}+"
        parts.append(f'<text class=axis x="{20 + (column + 0.45) * width:.1f}" y="238">{label}</text>')
    return f'<svg viewBox="0 0 1000 246" role="img">{"".join(parts)}</svg>'


def _rectangle(x: float, y: float, width: float, height: float, colour: int, title: str) -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect {place} fill="{_colour(colour)}"><title>{title}</title></rect>'


def _steps(steps: Sequence[dict[str, Any]]) -> list[str]:
    return [
        part for step in steps for part in (f"<h2>Step: {html.escape(step['step'])}</h2>", _step_table(step))
    ]


def _step_table(step: dict[str, Any]) -> str:
    """Numbers of one step's summary, nested ones flattened; samples are left to the JSON."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{_number(value)}</td></tr>"
        for name, value in _numbers("", step)
    )
    return f"<table class=step>{rows}</table>"


def _numbers(prefix: str, content: dict[str, Any]) -> Iterable[tuple[str, int]]:
    for key, value in content.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if isinstance(value, dict):
            yield from _numbers(f"{name}: ", value)
        elif isinstance(value, int):
            yield name, value


def _colour(index: int) -> str:
    return _COLOURS[min(index, len(_COLOURS) - 1)]


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Corpus</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-weight: 600 }} h2 {{ margin-top: 2.2rem; font-weight: 600; font-size: 1.15rem }}
.total {{ font-size: 1.1rem; color: #444 }}
svg {{ width: 100%; height: auto }} svg text {{ font: 13px system-ui, sans-serif }}
svg .axis {{ fill: #666; text-anchor: middle; font-size: 11px }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }}
th, td {{ text-align: right; padding: .3rem .6rem; border-bottom: 1px solid #e4e4e4 }}
th {{ font-weight: 500; color: #666 }} th:first-child, td:first-child {{ text-align: left }}
td i {{ display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em }}
.step {{ width: auto }}
</style>
<h1>Corpus</h1>
{body}
</html>
"""
