"""Between character spans of named things and B-, I-, O tags of words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

OUTSIDE = "O"


@dataclass(frozen=True, order=True)
class Entity:
    """Characters `start:end` of a text are of class `label`."""

    start: int
    end: int
    label: str


def entities_to_tags(words: Sequence[tuple[int, int]], entities: Sequence[Entity]) -> list[str]:
    """One tag a word; an entity covers every word it overlaps. Of overlapping entities the first given wins."""
    tags = [OUTSIDE] * len(words)
    for entity in entities:
        inside = [i for i, (start, end) in enumerate(words) if start < entity.end and end > entity.start]
        if any(tags[i] != OUTSIDE for i in inside):
            continue
        for order, i in enumerate(inside):
            tags[i] = f"{'I' if order else 'B'}-{entity.label}"
    return tags


def tags_to_entities(words: Sequence[tuple[int, int]], tags: Sequence[str]) -> list[Entity]:
    """Entities from tags, leniently as conlleval reads them: an I- without its B- opens an entity too."""
    entities: list[Entity] = []
    open_label, start, end = None, 0, 0
    for (first, last), tag in zip(words, tags, strict=True):
        prefix, _, label = tag.partition("-")
        if open_label is not None and prefix == "I" and label == open_label:
            end = last
            continue
        if open_label is not None:
            entities.append(Entity(start, end, open_label))
        open_label, start, end = (label or None if prefix != OUTSIDE else None), first, last
    if open_label is not None:
        entities.append(Entity(start, end, open_label))
    return entities
