"""One source as an endless sequence of token ids: shuffled documents, each followed by a separator.

An epoch is a permutation of all blocks. ``window_blocks`` consecutive blocks of it form a window, whose
documents are shuffled among each other in memory. Everything follows from (seed, epoch, window), so a
position is three numbers and resuming reads one window, never what came before it.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_prep.errors import ShardError, ShardUnavailable
from data_prep.shards import ShardReader

WINDOW_BLOCKS = 8
RETRY_SECONDS = 1.0


@dataclass(frozen=True)
class Cursor:
    """Position of the next token: its epoch, the window in it, the offset in that window's ids."""

    epoch: int = 0
    window: int = 0
    offset: int = 0


class BlockOrder:
    """Which blocks a window of an epoch holds.

    ``start`` turns every epoch's order by that fraction of it: peers that share a seed and begin at different
    places read different text until one comes to where the other began.
    """

    def __init__(
        self,
        readers: Sequence[ShardReader],
        seed: int,
        window_blocks: int = WINDOW_BLOCKS,
        start: float = 0.0,
    ) -> None:
        self._blocks = [
            (shard, block) for shard, reader in enumerate(readers) for block in range(len(reader))
        ]
        if not self._blocks:
            raise ShardError(f"no documents in {[reader.name for reader in readers]}: nothing to train on")
        self._seed, self._window_blocks, self._start = seed, window_blocks, start
        self._epoch = (-1, np.empty(0, dtype=np.int64))
        self.windows = -(-len(self._blocks) // window_blocks)

    def blocks(self, cursor: Cursor) -> list[tuple[int, int]]:
        """(shard, block) of the cursor's window."""
        if self._epoch[0] != cursor.epoch:
            rng = np.random.default_rng([self._seed, cursor.epoch])
            order = rng.permutation(len(self._blocks))
            self._epoch = (cursor.epoch, np.roll(order, -int(self._start * len(order))))
        first = cursor.window * self._window_blocks
        return [self._blocks[index] for index in self._epoch[1][first : first + self._window_blocks]]

    def after(self, cursor: Cursor) -> Cursor:
        """The beginning of the next window."""
        if cursor.window + 1 < self.windows:
            return Cursor(cursor.epoch, cursor.window + 1)
        return Cursor(cursor.epoch + 1)


class DocumentFlow:
    """Endless ids over the given shards.

    A window whose shard does not answer is passed over for this epoch, while another can be read; if none
    can, the flow waits.

    >>> flow = DocumentFlow(readers, seed=7, separator_id=3)
    >>> ids = flow.take(510)        # the next 510 ids
    >>> flow.cursor                 # where the 511th is
    """

    def __init__(
        self,
        readers: Sequence[ShardReader],
        *,
        seed: int,
        separator_id: int,
        order: BlockOrder | None = None,
        stopping: threading.Event | None = None,
    ) -> None:
        self._readers = list(readers)
        self._order = order or BlockOrder(readers, seed)
        self._seed, self._separator_id = seed, separator_id
        self._stopping = stopping or threading.Event()
        self._loaded: tuple[int, int] | None = None
        self._ids = np.empty(0, dtype=np.int32)
        self.cursor = Cursor()
        self.windows_missed = 0

    def take(self, count: int) -> np.ndarray:
        """The next ``count`` ids, over the ends of windows and epochs."""
        parts = []
        while count:
            ids = self._window_ids()
            part = ids[self.cursor.offset : self.cursor.offset + count]
            parts.append(part)
            count -= len(part)
            self._advance(len(part), len(ids))
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def skip_separator(self) -> None:
        """Pass over a separator, if that is what comes next."""
        ids = self._window_ids()
        if ids[self.cursor.offset] == self._separator_id:
            self._advance(1, len(ids))

    def _advance(self, count: int, length: int) -> None:
        offset = self.cursor.offset + count
        self.cursor = (
            replace(self.cursor, offset=offset) if offset < length else self._order.after(self.cursor)
        )

    def _window_ids(self) -> np.ndarray:
        """Ids of the cursor's window; the cursor moves on to one that can be read."""
        failures = 0
        while self._loaded != (self.cursor.epoch, self.cursor.window):
            try:
                self._load()
            except ShardUnavailable:
                failures += 1
                self.windows_missed += 1
                self.cursor = self._order.after(self.cursor)
                if failures % self._order.windows == 0 and self._stopping.wait(RETRY_SECONDS):
                    raise
        return self._ids

    def _load(self) -> None:
        key = (self.cursor.epoch, self.cursor.window)
        blocks = [self._readers[shard].block(block) for shard, block in self._order.blocks(self.cursor)]
        rng = np.random.default_rng([self._seed, *key, 1])
        self._ids, self._loaded = _shuffled(blocks, self._separator_id, rng), key


def _shuffled(
    blocks: list[tuple[np.ndarray, np.ndarray]], separator_id: int, rng: np.random.Generator
) -> np.ndarray:
    """All documents of the blocks in random order, a separator after each."""
    ids = np.concatenate([ids for ids, _ in blocks])
    lengths = np.concatenate([np.diff(offsets) for _, offsets in blocks]).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    order = rng.permutation(len(lengths))
    lengths, starts = lengths[order], starts[order]
    ends = np.cumsum(lengths + 1)
    # position of every output id in the input; a separator's own slot points one past its document
    origin = np.repeat(starts - (ends - lengths - 1), lengths + 1) + np.arange(ends[-1])
    flat = np.append(ids, 0).astype(np.int32)[origin]
    flat[ends - 1] = separator_id
    return flat
