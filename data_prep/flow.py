"""One source as an endless sequence of token ids: shuffled documents, each followed by a separator.

An epoch is a permutation of all blocks. ``window_blocks`` consecutive blocks of it form a window, whose
documents are shuffled among each other in memory. Everything follows from (seed, epoch, window), so a
position is three numbers and resuming reads one window, never what came before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_prep.errors import ShardError
from data_prep.shards import ShardReader

WINDOW_BLOCKS = 8


@dataclass(frozen=True)
class Cursor:
    """Position of the next token: its epoch, the window in it, the offset in that window's ids."""

    epoch: int = 0
    window: int = 0
    offset: int = 0


class DocumentFlow:
    """Endless ids over the given shards.

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
        window_blocks: int = WINDOW_BLOCKS,
    ) -> None:
        self._readers = list(readers)
        self._blocks = [
            (shard, block) for shard, reader in enumerate(readers) for block in range(len(reader))
        ]
        if not self._blocks:
            raise ShardError(
                f"no documents in {[str(reader.path) for reader in readers]}: nothing to train on"
            )
        self._seed, self._separator_id, self._window_blocks = seed, separator_id, window_blocks
        self._loaded: tuple[int, int] | None = None
        self._ids = np.empty(0, dtype=np.int32)
        self._order = (-1, np.empty(0, dtype=np.int64))
        self.cursor = Cursor()

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
        if offset < length:
            self.cursor = replace(self.cursor, offset=offset)
        elif (self.cursor.window + 1) * self._window_blocks < len(self._blocks):
            self.cursor = Cursor(self.cursor.epoch, self.cursor.window + 1)
        else:
            self.cursor = Cursor(self.cursor.epoch + 1)

    def _window_ids(self) -> np.ndarray:
        key = (self.cursor.epoch, self.cursor.window)
        if self._loaded != key:
            first = self.cursor.window * self._window_blocks
            chosen = self._epoch_order(self.cursor.epoch)[first : first + self._window_blocks]
            blocks = [self._read(*self._blocks[index]) for index in chosen]
            rng = np.random.default_rng([self._seed, *key, 1])
            self._ids, self._loaded = _shuffled(blocks, self._separator_id, rng), key
        return self._ids

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self._seed, epoch]).permutation(len(self._blocks)))
        return self._order[1]

    def _read(self, shard: int, block: int) -> tuple[np.ndarray, np.ndarray]:
        return self._readers[shard].block(block)


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
