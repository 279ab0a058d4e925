"""What every step before tokenization reads and writes: one document, one row."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Document:
    """A piece of running text.

    ``source`` names the collection (mixture weights are given per source), ``id`` is unique within it.
    Paragraphs are separated by newlines.
    """

    text: str
    source: str
    id: str
