"""Partial overlaps: spans of many words that several documents share, cut out of all but the first.

Every run of ``span_words`` words is hashed; a run that also stands earlier (in an earlier document, or
earlier in the same one) is covered, and the covered words are cut from the text. The first occurrence in the
order of the documents stays whole. Memory: 24 bytes a word, so 40 million words take 1 GB.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from data_prep.errors import DataError
from data_prep.shingles import HashedTexts, shingle

SPAN_WORDS = 50
_WORD = re.compile(r"[^\W_]+")
_SPACES = re.compile(r"[^\S\n]+")


def repeated_words(texts: HashedTexts, span_words: int = SPAN_WORDS) -> np.ndarray:
    """A boolean for every word of ``texts``: whether it lies in a span that occurred before."""
    check_span_words(span_words)
    runs = shingle(texts, span_words)
    lengths = np.diff(texts.offsets)
    whole = np.repeat(lengths >= span_words, np.diff(runs.offsets))
    position = np.arange(len(runs.words)) + np.repeat(
        texts.offsets[:-1] - runs.offsets[:-1], np.diff(runs.offsets)
    )
    hashes, position = runs.words[whole], position[whole]
    _, first = np.unique(hashes, return_index=True)
    again = np.ones(len(hashes), dtype=bool)
    again[first] = False
    # +1 where a repeated run begins, -1 past its end: covered where the sum is positive
    change = np.zeros(len(texts.words) + 1, dtype=np.int32)
    np.add.at(change, position[again], 1)
    np.add.at(change, position[again] + span_words, -1)
    return np.cumsum(change[:-1]) > 0


def check_span_words(span_words: int) -> None:
    """Raise ``DataError`` for spans so short that any two texts share some."""
    if span_words < 8:
        raise DataError(f"shared spans need 8 words or more, not {span_words}: shorter ones are phrases")


def cut_words(text: str, covered: np.ndarray) -> str | None:
    """``text`` without its covered words and what stands between them; None if words cannot be matched."""
    matches = list(_WORD.finditer(text))
    if len(matches) != len(covered):
        return None
    keep, start = [], 0
    for first, last in _runs(covered):
        keep.append(text[start : matches[first].start()])
        start = matches[last + 1].start() if last + 1 < len(matches) else len(text)
    joined = "".join([*keep, text[start:]])
    return "\n".join(_SPACES.sub(" ", line).strip() for line in joined.split("\n")).strip()


def _runs(covered: np.ndarray) -> Sequence[tuple[int, int]]:
    """First and last index of every run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([0], covered.astype(np.int8), [0]))))
    return [(int(first), int(end) - 1) for first, end in zip(edges[::2], edges[1::2], strict=True)]
