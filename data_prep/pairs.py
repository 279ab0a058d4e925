"""Sentence-pair rows ``[CLS] A [SEP] B [SEP]``: two consecutive segments of one document, or swapped.

A segment pair is cut from whole sentences that together fit into the row; a document that is longer gives
several. The label is 0 when A comes first in the document and 1 when the two are swapped (ALBERT's
sentence-order prediction, Lan et al. 2020, section 3.1). Rows end in padding where sentences do not fill
them. Documents of one sentence give no pair.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from data_prep.block_text import BlockText
from data_prep.errors import ShardError
from data_prep.seeds import stable_hash
from data_prep.windows import Windows

Pair = tuple[np.ndarray, np.ndarray]


class PairFlow:
    """Endless segment pairs over the windows of a walk; the cursor's ``offset`` counts pairs.

    >>> flow = PairFlow(windows, seed=7)
    >>> first, second, swapped = flow.take(length=128)
    """

    def __init__(self, windows: Windows, *, seed: int) -> None:
        self.windows = windows
        self._seed = seed
        self._loaded: tuple[int, tuple[int, ...], int] | None = None
        self._pairs: list[Pair] = []

    def take(self, length: int) -> tuple[np.ndarray, np.ndarray, bool]:
        """The next pair that fits a row of ``length``, in the order of the row, and whether it is swapped."""
        pairs = self._window_pairs(length)
        cursor = self.windows.cursor
        index = min(cursor.offset, len(pairs) - 1)  # another length cuts another number of pairs
        first, second = pairs[index]
        if index + 1 == len(pairs):
            self.windows.advance()
        else:
            self.windows.cursor = replace(cursor, offset=index + 1)
        swapped = bool(stable_hash(self._seed, cursor.window, index) & 1)
        return (second, first, True) if swapped else (first, second, False)

    def _window_pairs(self, length: int) -> list[Pair]:
        """Pairs of the cursor's window, or of the next one that has any."""
        begun = self.windows.position
        while True:
            cursor = self.windows.cursor
            if self._loaded != (cursor.window, cursor.units, length):
                self._load(length)
            if self._pairs:
                return self._pairs
            self.windows.advance()
            if self.windows.position > begun + 2:
                raise ShardError(
                    f"no document has two sentences that fit into {length} tokens: use single rows"
                )

    def _load(self, length: int) -> None:
        pairs = [pair for text in self.windows.load() for pair in _pairs_of(text, length - 3)]
        cursor = self.windows.cursor
        rng = np.random.default_rng([self._seed, cursor.window, length, 4])
        self._pairs = [pairs[index] for index in rng.permutation(len(pairs))]
        self._loaded = (cursor.window, cursor.units, length)


def _pairs_of(text: BlockText, room: int) -> list[Pair]:
    return [
        pair
        for document in text.documents()
        for pair in cut_pairs(document.input_ids, document.sentence_ends, room)
    ]


def cut_pairs(ids: np.ndarray, sentence_ends: np.ndarray, room: int) -> list[Pair]:
    """Runs of two or more sentences of at most ``room`` ids, each split where its halves are most equal."""
    bounds = np.concatenate(([0], sentence_ends)).astype(np.int64)
    pairs: list[Pair] = []
    first, last = 0, len(bounds) - 1
    while first < last:
        end = int(np.searchsorted(bounds, bounds[first] + room, side="right")) - 1
        if end - first < 2:  # a sentence that leaves no room for another
            first += 1
            continue
        inner = bounds[first + 1 : end]
        middle = int(inner[np.abs(2 * inner - bounds[first] - bounds[end]).argmin()])
        pairs.append((ids[bounds[first] : middle], ids[middle : bounds[end]]))
        first = end
    return pairs


def pair_row(
    pair: Pair, length: int, *, cls_id: int, sep_id: int, pad_id: int
) -> tuple[np.ndarray, np.ndarray]:
    """The row's ids and its token types: 1 for B and its ``[SEP]``, 0 before and for padding."""
    first, second = pair
    ids = np.full(length, pad_id, dtype=np.int32)
    types = np.zeros(length, dtype=np.int64)
    middle, end = len(first) + 1, len(first) + len(second) + 2
    ids[0], ids[middle], ids[end] = cls_id, sep_id, sep_id
    ids[1:middle], ids[middle + 1 : end] = first, second
    types[middle + 1 : end + 1] = 1
    return ids, types
