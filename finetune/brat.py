"""BRAT standoff: `name.txt` with the text, `name.ann` with lines `T1<TAB>Person 0 5<TAB>Мария`.

Offsets count characters. Discontinuous entities (`0 5;8 12`) are taken from their first to their last
character; only lines of entities (T…) are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import BadInput
from finetune.tags import Entity


@dataclass(frozen=True)
class BratDocument:
    """A text and its entities (None without an .ann file), longest first where they overlap."""

    name: str
    text: str
    entities: tuple[Entity, ...] | None


def read_brat(folder: Path, notes: Counter[str]) -> Iterator[BratDocument]:
    """Every document of a folder, in order of names; `BadInput` names a line that cannot be read."""
    for path in sorted(folder.glob("*.txt")):
        # newline="": a text with \r\n counts both characters
        with path.open(encoding="utf-8", newline="") as file:
            text = file.read()
        annotations = path.with_suffix(".ann")
        entities = None
        if annotations.is_file():
            found = sorted(_entities(annotations, text, notes), key=lambda e: (e.start - e.end, e.start))
            entities = tuple(_without_overlaps(found, notes))
        yield BratDocument(path.stem, text, entities)


def to_brat(text: str, entities: Sequence[Entity]) -> str:
    """Entities as the lines of an .ann file."""
    return "".join(
        f"T{number}\t{entity.label} {entity.start} {entity.end}\t"
        f"{' '.join(text[entity.start : entity.end].split())}\n"
        for number, entity in enumerate(entities, start=1)
    )


def _entities(path: Path, text: str, notes: Counter[str]) -> Iterator[Entity]:
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), start=1):
        if not line.startswith("T"):
            continue
        try:
            label, _, places = line.split("\t")[1].strip().partition(" ")
            pieces = [tuple(map(int, piece.split())) for piece in places.split(";")]
            start, end = pieces[0][0], pieces[-1][1]
        except (ValueError, IndexError):
            raise BadInput(
                f"ner: {path}, line {number}: not an entity such as 'T1<TAB>Person 0 5<TAB>text'"
            ) from None
        if not 0 <= start < end <= len(text):
            raise BadInput(f"ner: {path}, line {number}: characters {start} to {end} are not in the text")
        if len(pieces) > 1:
            notes["discontinuous entities, read as one piece"] += 1
        yield Entity(start, end, label)


def _without_overlaps(entities: list[Entity], notes: Counter[str]) -> Iterator[Entity]:
    kept: list[Entity] = []
    for entity in entities:
        if any(entity.start < other.end and other.start < entity.end for other in kept):
            notes["entities inside longer ones, left out"] += 1
            continue
        kept.append(entity)
        yield entity
