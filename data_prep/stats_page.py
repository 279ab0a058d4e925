"""The page of `data-prep stats`: stands alone, no script, no network."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from data_prep.stats_charts import LengthScale, bars, funnel, legend, lengths_chart, number, share_bar, swatch
from data_prep.stats_style import PAGE

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
        (number(totals["words"]), "words"),
        (number(totals["documents"]), "documents"),
        (number(round(totals["words"] / max(1, totals["documents"]))), "words a document"),
        (_size(totals["bytes"]), "of text"),
        (str(len(sources)), "source" if len(sources) == 1 else "sources"),
    ]
    sections = [
        f"<div class=facts>{''.join(f'<div><b>{value}</b>{label}</div>' for value, label in facts)}</div>",
        _section("What it is made of", share_bar(sources) + _source_table(sources)),
        _section("How long its documents are", _lengths(sources, stats["length_edges"])),
        *([_section("What became of it on the way", _journey(stats["steps"]))] if stats["steps"] else []),
        *(_step(step) for step in stats["steps"]),
    ]
    return PAGE.format(title=html.escape(f"Corpus {stats['name']}"), body="\n".join(sections))


def _section(title: str, body: str) -> str:
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def _source_table(sources: Sequence[dict[str, Any]]) -> str:
    scale = LengthScale(sources)
    names = ("source", "documents", "words", "share", "median length", scale.ticks())
    rows = [
        (
            f"{swatch(index)}{html.escape(row['source'])}",
            number(row["documents"]),
            number(row["words"]),
            f"{row['share']:.1%}",
            number(row["length_quantiles"]["0.5"]),
            scale.range(row["length_quantiles"], index),
        )
        for index, row in enumerate(sources)
    ]
    note = "On the right, the length of documents in words: the line holds 90 % of them, the box the middle half."
    return f"{_table(names, rows, 'sources')}<p class=note>{note}</p>"


def _lengths(sources: Sequence[dict[str, Any]], edges: Sequence[int]) -> str:
    note = (
        "Documents by their number of words: each column begins at the number below it and ends at the next."
    )
    chips = legend(sources) if len(sources) > 1 else ""
    return f"<p class=note>{note}</p>{chips}{lengths_chart(sources, edges)}"


def _journey(steps: Sequence[dict[str, Any]]) -> str:
    """Documents after every step, from those that the first of them read."""
    first = steps[0]
    counts = [("Read", first["read"])] if first.get("read") else []
    counts += [(_STEP_WORDS.get(step["step"], step["step"]), step["documents"]) for step in steps]
    return f"<p class=note>Documents left after each step.</p>{funnel(counts)}"


def _step(step: dict[str, Any]) -> str:
    """One step's summary: how many documents stayed, what removed the others, and samples of that."""
    parts = [_kept(step["read"], step["documents"]) if step.get("read") else _read_in(step)]
    if rules := step.get("rules"):
        rows = [
            (html.escape(name), *(_count(rule[what]) for what in ("removed", "changed", "characters")))
            for name, rule in rules.items()
        ]
        parts.append(_table(("rule", "removed", "changed", "characters fewer"), rows))
        parts += [_samples(name, rule["samples"]) for name, rule in rules.items()]
    if removed := step.get("removed_by_source"):
        parts.append(f"<h3>Duplicates removed, by source</h3>{bars(removed)}")
    told = {"rules", "removed_by_source", "sources", "read", "documents", "damage"}
    rest = [(_LABELS.get(name, name), _count(value)) for name, value in _numbers("", step, told)]
    if rest:
        parts.append(_table(("", ""), [(html.escape(name), value) for name, value in rest], "plain"))
    parts.append(_damage(step.get("damage", {})))
    if step.get("step") == "dedup" and step.get("samples"):
        parts.append(_pairs(step["samples"]))
    return _section(_STEP_WORDS.get(step["step"], step["step"]), "".join(parts))


def _kept(read: int, kept: int) -> str:
    share = "all of them" if kept == read else f"{min(kept / max(1, read), 0.9999):.2%}"
    return f"<p class=note><b>{number(kept)}</b> of {number(read)} documents stayed: {share}.</p>"


def _read_in(step: dict[str, Any]) -> str:
    lost = step.get("damage", {}).get("lost", 0)
    trouble = f"{number(lost)} damaged places were passed over" if lost else "nothing was damaged"
    return f"<p class=note><b>{number(step['documents'])}</b> documents were read; {trouble}.</p>"


def _samples(rule: str, samples: Sequence[dict[str, str]]) -> str:
    if not samples:
        return ""
    rows = "".join(
        f"<blockquote><small>{html.escape(sample['source'])} / {html.escape(sample['id'])}</small>"
        f"{html.escape(sample['text'])}</blockquote>"
        for sample in samples[:_SAMPLES]
    )
    return f"<details><summary>What the rule “{html.escape(rule)}” met</summary>{rows}</details>"


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
    return f"<details><summary>{number(damage['lost'])} damaged places</summary>{table}</details>"


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


def _count(value: int) -> str:
    return number(value) if value else "<span class=zero>0</span>"


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
