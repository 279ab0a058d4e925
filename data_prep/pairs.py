"""Sentence-pair rows ``[CLS] A [SEP] B [SEP]``: two consecutive segments of one document, or swapped.

A segment pair is cut from whole sentences that together fit into the row; a document that is longer gives
several. The label is 0 when A comes first in the document and 1 when the two are swapped (ALBERT's
sentence-order prediction, Lan et al. 2020, section 3.1). Rows end in padding where sentences do not fill
them. Documents of one sentence give no pair.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data_prep.errors import ShardError, ShardUnavailable
from data_prep.flow import RETRY_SECONDS, BlockOrder, Cursor
from data_prep.seeds import stable_hash
from data_prep.shards import ShardReader

Pair = tuple[np.ndarray, np.ndarray]


class PairFlow:
    """Endless segment pairs over the given shards; its ``cursor`` counts pairs within a window.

    >>> flow = PairFlow(readers, seed=7)
    >>> first, second, swapped = flow.take(length=128)
    """

    def __init__(
        self,
        readers: Sequence[ShardReader],
        *,
        seed: int,
        order: BlockOrder | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._readers, self._seed = list(readers), seed
        self._order = order or BlockOrder(readers, seed)
        self._loaded: tuple[int, int, int] | None = None
        self._pairs: list[Pair] = []
        self.cursor = Cursor()
        self.windows_missed = 0
        self._missed = False
        self._stopping = stopping or threading.Event()

    def take(self, length: int) -> tuple[np.ndarray, np.ndarray, bool]:
        """The next pair that fits a row of ``length``, in the order of the row, and whether it is swapped."""
        pairs = self._window_pairs(length)
        index = min(self.cursor.offset, len(pairs) - 1)  # another length cuts another number of pairs
        first, second = pairs[index]
        cursor = self.cursor
        self.cursor = (
            self._order.after(cursor) if index + 1 == len(pairs) else replace(cursor, offset=index + 1)
        )
        swapped = bool(stable_hash(self._seed, cursor.epoch, cursor.window, index) & 1)
        return (second, first, True) if swapped else (first, second, False)

    def _window_pairs(self, length: int) -> list[Pair]:
        """Pairs of the cursor's window, or of the next one that has any."""
        missed = empty = 0
        while not self._load(length):
            missed += self._missed
            empty += not self._missed
            self.cursor = self._order.after(self.cursor)
            if empty >= self._order.windows:
                raise ShardError(
                    f"no document has two sentences that fit into {length} tokens: use single rows"
                )
            if missed and (missed + empty) % self._order.windows == 0:
                self._stopping.wait(RETRY_SECONDS)
                if self._stopping.is_set():
                    raise ShardUnavailable("no shard can be read")
        return self._pairs

    def _load(self, length: int) -> bool:
        """Whether the cursor's window has pairs; ``_missed`` says that it could not be read."""
        key = (self.cursor.epoch, self.cursor.window, length)
        self._missed = False
        if self._loaded != key:
            try:
                pairs = self._read_pairs(length)
            except ShardUnavailable:
                self.windows_missed += 1
                self._missed, self._loaded = True, None
                return False
            rng = np.random.default_rng([self._seed, *key, 4])
            self._pairs = [pairs[index] for index in rng.permutation(len(pairs))]
            self._loaded = key
        return bool(self._pairs)

    def _read_pairs(self, length: int) -> list[Pair]:
        pairs: list[Pair] = []
        for shard, block in self._order.blocks(self.cursor):
            ids, offsets = self._readers[shard].block(block)
            ends, end_offsets = self._readers[shard].sentence_ends(block)
            for index in range(len(offsets) - 1):
                document = ids[offsets[index] : offsets[index + 1]]
                pairs += cut_pairs(document, ends[end_offsets[index] : end_offsets[index + 1]], length - 3)
        return pairs


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
