"""The page of `data-prep stats`: stands alone, charts of plain boxes, no script, no network, from 320 px on."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_COLOURS = ("#2f6690", "#c8553d", "#d9a036", "#5b8e7d", "#6a4c93", "#8d5524", "#3a7d7c", "#8a8a8a")
_STEP_WORDS = {"import": "Import", "clean": "Cleaning", "dedup": "Deduplication"}
_SAMPLES = 5
_LABELS = {
    "exact": "exact duplicates removed",
    "near": "near-duplicates removed",
    "words": "words looked at",
    "words cut": "words cut: spans that stand in another document",
    "documents cut": "documents cut",
    "emptied": "documents of which nothing was left",
    "not cut because words did not match": "documents that could not be cut",
}


def render(stats: dict[str, Any]) -> str:
    """HTML of what `corpus_stats` returns."""
    totals, sources = stats["totals"], stats["sources"]
    facts = [
        (_number(totals["documents"]), "documents"),
        (_number(totals["words"]), "words"),
        (_number(round(totals["words"] / max(1, totals["documents"]))), "words a document"),
        (_size(totals["bytes"]), "of text"),
        (str(len(sources)), "source" if len(sources) == 1 else "sources"),
    ]
    sections = [
        f"<div class=facts>{''.join(f'<div><b>{value}</b>{label}</div>' for value, label in facts)}</div>",
        _section("Share of words by source", _share_bar(sources) + _source_table(sources)),
        _section("Length of documents, in words", _lengths_chart(sources, stats["length_edges"])),
        *(_step(step) for step in stats["steps"]),
    ]
    return _PAGE.format(body="\n".join(sections))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def _share_bar(sources: Sequence[dict[str, Any]]) -> str:
    parts = "".join(
        f'<div style="flex:{max(row["share"], 0.002):.4f};background:{_colour(index)}" '
        f'title="{html.escape(row["source"])}: {row["share"]:.1%}">'
        f"{html.escape(row['source']) if row['share'] > 0.12 else ''}</div>"
        for index, row in enumerate(sources)
    )
    return f'<div class=share role="img" aria-label="share of words by source">{parts}</div>'


def _source_table(sources: Sequence[dict[str, Any]]) -> str:
    names = ("source", "documents", "words", "share", "median", "5 % to 95 %")
    rows = [
        (
            f'<i style="background:{_colour(index)}"></i>{html.escape(row["source"])}',
            _number(row["documents"]),
            _number(row["words"]),
            f"{row['share']:.1%}",
            _number(row["length_quantiles"]["0.5"]),
            f"{_number(row['length_quantiles']['0.05'])} to {_number(row['length_quantiles']['0.95'])}",
        )
        for index, row in enumerate(sources)
    ]
    return _table(names, rows, "sources")


def _lengths_chart(sources: Sequence[dict[str, Any]], edges: Sequence[int]) -> str:
    """Stacked columns, one per length class that occurs, coloured by source."""
    counts = np.array([row["length_histogram"] for row in sources])
    used = np.flatnonzero(counts.sum(axis=0))
    top = int(counts.sum(axis=0).max())
    columns = []
    for column in range(int(used[0]), int(used[-1]) + 1):
        boxes = "".join(
            f'<div style="height:{100 * int(count) / top:.2f}%;background:{_colour(index)}"></div>'
            for index, count in enumerate(counts[:, column])
            if count
        )
        title = "\n".join(
            f"{row['source']}: {_number(int(count))}"
            for row, count in zip(sources, counts[:, column], strict=True)
            if count
        )
        label = f"&lt;{edges[0]}" if column == 0 else _short(edges[column - 1])
        columns.append(
            f'<div class=column title="{html.escape(title)}"><div class=stack>{boxes}</div>'
            f"<span>{label}</span></div>"
        )
    return (
        f"<p class=note>Documents by length; each column begins at the number below it and ends at the next. "
        f"The highest holds {_number(top)}.</p>"
        f'<div class=columns role="img" aria-label="documents by length">{"".join(columns)}</div>'
    )


def _step(step: dict[str, Any]) -> str:
    """One step's summary: how many documents stayed, what removed the others, and samples of that."""
    parts = [_kept_bar(step["read"], step["documents"]) if step.get("read") else _read_in(step)]
    if rules := step.get("rules"):
        rows = [
            (
                html.escape(name),
                _number(rule["removed"]),
                _number(rule["changed"]),
                _number(rule["characters"]),
            )
            for name, rule in rules.items()
        ]
        parts.append(_table(("rule", "removed", "changed", "shorter by"), rows))
        parts += [_samples(f"{name}: what it met", rule["samples"]) for name, rule in rules.items()]
    if removed := step.get("removed_by_source"):
        parts.append(_bars("Duplicates removed, by source", removed))
    told = {"rules", "removed_by_source", "sources", "read", "documents", "damage"}
    rest = [(_LABELS.get(name, name), _number(value)) for name, value in _numbers("", step, told)]
    if rest:
        parts.append(_table(("", ""), [(html.escape(name), value) for name, value in rest], "plain"))
    parts.append(_damage(step.get("damage", {})))
    if step.get("step") == "dedup" and step.get("samples"):
        parts.append(_pairs(step["samples"]))
    return _section(_STEP_WORDS.get(step["step"], step["step"]), "".join(parts))


def _kept_bar(read: int, kept: int) -> str:
    share = kept / max(1, read)
    return (
        f"<p class=note><b>{_number(kept)}</b> of {_number(read)} documents stayed ({share:.1%}).</p>"
        f'<div class=share><div style="flex:{max(share, 0.002):.4f};background:{_COLOURS[0]}"></div>'
        f'<div class=gone style="flex:{max(1 - share, 0):.4f}"></div></div>'
    )


def _read_in(step: dict[str, Any]) -> str:
    lost = step.get("damage", {}).get("lost", 0)
    trouble = f"{_number(lost)} damaged places were passed over" if lost else "nothing was damaged"
    return f"<p class=note><b>{_number(step['documents'])}</b> documents were read; {trouble}.</p>"


def _bars(title: str, counts: dict[str, int]) -> str:
    top = max(counts.values())
    rows = "".join(
        f"<div class=bar><span>{html.escape(name)}</span>"
        f'<div><div style="width:{100 * count / top:.1f}%"></div></div><span>{_number(count)}</span></div>'
        for name, count in sorted(counts.items(), key=lambda item: -item[1])
    )
    return f"<h3>{html.escape(title)}</h3>{rows}"


def _samples(title: str, samples: Sequence[dict[str, str]]) -> str:
    if not samples:
        return ""
    rows = "".join(
        f"<blockquote><small>{html.escape(sample['source'])} / {html.escape(sample['id'])}</small>"
        f"{html.escape(sample['text'])}</blockquote>"
        for sample in samples[:_SAMPLES]
    )
    return f"<details><summary>{html.escape(title)}</summary>{rows}</details>"


def _pairs(samples: Sequence[dict[str, str]]) -> str:
    rows = [(html.escape(sample["removed"]), html.escape(sample["kept"])) for sample in samples]
    table = _table(("removed", "for the sake of"), rows, "names")
    return f"<details><summary>Some of the duplicates</summary>{table}</details>"


def _damage(damage: dict[str, Any]) -> str:
    if not damage.get("places"):
        return ""
    rows = [
        (
            html.escape(place["file"].rsplit("/", 1)[-1]),
            html.escape(place["position"]),
            html.escape(place["reason"]),
        )
        for place in damage["places"]
    ]
    table = _table(("file", "place", "reason"), rows, "names")
    return f"<details><summary>{_number(damage['lost'])} damaged places</summary>{table}</details>"


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    head = f"<tr>{''.join(f'<th>{name}</th>' for name in names)}</tr>" if any(names) else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class=scroll><table class="{kind}">{head}{body}</table></div>'


def _numbers(prefix: str, content: dict[str, Any], without: set[str]) -> Iterable[tuple[str, int]]:
    for key, value in content.items():
        name = f"{prefix}{key.replace('_', ' ')}"
        if key in without:
            continue
        if isinstance(value, dict):
            yield from _numbers(f"{name}: ", value, without)
        elif isinstance(value, int):
            yield name, value


def _colour(index: int) -> str:
    return _COLOURS[min(index, len(_COLOURS) - 1)]


def _number(value: int) -> str:
    return f"{value:,}".replace(",", "\u202f")


def _short(value: int) -> str:
    return str(value) if value < 1024 else f"{value // 1024}k"


def _size(count: int) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count = count / 1000  # type: ignore[assignment]
    return f"{count:.3g} TB"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Corpus</title>
<style>
:root {{ color-scheme: light dark; --line: #8884; --dim: #777; --gone: #8883 }}
* {{ box-sizing: border-box }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 1.5rem auto 4rem; padding: 0 1rem }}
h1 {{ font-weight: 600; margin: 0 0 1rem }}
h2 {{ margin: 2.4rem 0 .6rem; font-weight: 600; font-size: 1.15rem }}
h3 {{ margin: 1.4rem 0 .4rem; font-weight: 500; font-size: 1rem }}
.note {{ color: var(--dim); margin: .2rem 0 .6rem }}
.facts {{ display: flex; flex-wrap: wrap; gap: .8rem 2.2rem }}
.facts div {{ color: var(--dim) }}
.facts b {{ display: block; color: CanvasText; font-size: 1.5rem; font-weight: 600; line-height: 1.2 }}
.share {{ display: flex; gap: 2px; height: 2.4rem; margin-bottom: .8rem; border-radius: 4px; overflow: hidden }}
.share div {{ min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; color: #fff;
  padding: 0 .5em; line-height: 2.4rem; font-size: .85rem }}
.share div:empty {{ padding: 0 }}
.share .gone {{ background: var(--gone) }}
.columns {{ display: flex; gap: 2px; align-items: flex-end }}
.column {{ flex: 1; min-width: 0; text-align: center }}
.stack {{ height: 13rem; display: flex; flex-direction: column-reverse; border-bottom: 1px solid var(--line) }}
.column span {{ font-size: clamp(9px, 2.4vw, 12px); color: var(--dim) }}
.bar {{ display: grid; grid-template-columns: minmax(6rem, 12rem) 1fr 5rem; gap: .6rem; align-items: center;
  margin: .2rem 0; font-variant-numeric: tabular-nums }}
.bar span {{ overflow: hidden; text-overflow: ellipsis; white-space: nowrap }}
.bar span:last-child {{ text-align: right }}
.bar div div {{ height: .8rem; min-width: 1px; border-radius: 2px; background: #2f6690 }}
.scroll {{ overflow-x: auto; margin: .6rem 0 }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums }}
th, td {{ text-align: right; padding: .3rem .6rem; border-bottom: 1px solid var(--line); white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; white-space: normal; min-width: 5rem }}
th {{ font-weight: 500; color: var(--dim) }}
td i {{ display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .5em }}
.plain {{ width: auto }}
.plain td:first-child {{ white-space: normal }}
.names th, .names td {{ text-align: left; white-space: normal; overflow-wrap: anywhere }}
details {{ margin: .5rem 0 }} summary {{ cursor: pointer }}
blockquote {{ margin: .6rem 0; padding-left: .8rem; border-left: 3px solid var(--line); overflow-wrap: anywhere }}
blockquote small {{ display: block; color: var(--dim) }}
@media (max-width: 40rem) {{
  .sources th:nth-child(n+5), .sources td:nth-child(n+5) {{ display: none }}
  table {{ font-size: .85rem }} th, td {{ padding: .3rem .25rem }} td i {{ margin-right: .3em }}
  th {{ white-space: normal }} td:first-child {{ overflow-wrap: anywhere }}
  .bar {{ grid-template-columns: 7rem 1fr 3.5rem }}
}}
</style>
<h1>Corpus</h1>
{body}
</html>
"""
