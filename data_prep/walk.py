"""The order in which one source's text is read: units in a random permutation, another one every epoch.

A *unit* is a block of a shard or, when there are few blocks, a part of one, so that many readers can divide a
small corpus among them. A *window* is the next few units that are ours: they are held in memory together and
their documents shuffled among each other. A cursor names the units of its window, so resuming depends on
nobody else's share, and reads one window, never what came before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from data_prep.block_text import BlockText
from data_prep.errors import ShardError
from data_prep.seeds import stable_hash
from data_prep.shards import Shard
from data_prep.shares import Shares

WINDOW_UNITS = 8
_LEAST_UNITS = 4096
_MOST_PARTS = 64
_LOOKED_AT_ONCE = 512
_MOST_BLOCKS = 1 << 26  # 4 trillion tokens; with their parts, units are numbered in 32 bits


@dataclass(frozen=True)
class Cursor:
    """Position of the next token, and of the walk behind it.

    :param epoch: of the window; `first`: where it began in the epoch's order; `next`: where the walk goes on
    :param units: the window's, by number; `offset`: ids (or pairs) of it already taken
    :param window: counts windows, and seeds their shuffling
    """

    epoch: int = 0
    first: int = 0
    next: int = 0
    units: tuple[int, ...] = ()
    offset: int = 0
    window: int = 0


class Walk:
    """Units of the given shards in order; with `shares`, only those that are ours.

    >>> walk = Walk(shards, seed=7)
    >>> cursor = walk.after(Cursor())     # the first window
    >>> texts = [walk.read(unit) for unit in cursor.units]
    """

    def __init__(self, shards: Sequence[Shard], seed: int, shares: Shares | None = None) -> None:
        self._shards, self._seed, self._shares = list(shards), seed, shares
        self._first_block = np.concatenate(([0], np.cumsum([len(shard) for shard in shards]))).astype(int)
        blocks = int(self._first_block[-1])
        if not 0 < blocks <= _MOST_BLOCKS:
            raise ShardError(
                f"{blocks} blocks in {[shard.name for shard in shards][:5]}: nothing to train on"
            )
        documents = sum(shard.documents for shard in shards)
        # two documents a unit at the least: a unit without any would be nobody's work
        most = max(1, min(_MOST_PARTS, documents // (2 * blocks)))
        self._parts = min(most, -(-_LEAST_UNITS // blocks))
        self.units = blocks * self._parts
        self.tokens = sum(shard.tokens for shard in shards)
        self._order = (-1, np.empty(0, dtype=np.uint32))

    def after(self, cursor: Cursor) -> Cursor:
        """The beginning of the next window."""
        looked_at, epoch, first = 0, cursor.epoch, cursor.next
        while looked_at < self.units or first >= self.units:
            if first >= self.units:
                epoch, first = epoch + 1, 0
            order = self._order_of(epoch)[first : first + _LOOKED_AT_ONCE]
            mine = np.flatnonzero(self._owned(epoch, order))[:WINDOW_UNITS]
            if len(mine):
                last = int(mine[-1]) + 1 if len(mine) == WINDOW_UNITS else len(order)
                return Cursor(epoch, first, first + last, tuple(order[mine].tolist()), 0, cursor.window + 1)
            looked_at += len(order)
            first += len(order)
        # more readers than units: better a repeat than an idle reader
        unit = int(self._order_of(epoch)[first])
        return Cursor(epoch, first, first + 1, (unit,), 0, cursor.window + 1)

    def position(self, cursor: Cursor) -> float:
        """Epochs walked."""
        return cursor.epoch + cursor.next / self.units

    def at_least(self, cursor: Cursor, position: float) -> Cursor:
        """The same units in hand, and the walk going on no earlier than at `position`."""
        if self.position(cursor) >= position:
            return cursor
        epoch = int(position)
        return replace(cursor, epoch=epoch, next=int((position - epoch) * self.units))

    def read(self, unit: int) -> BlockText:
        """Documents of a unit; raises `ShardUnavailable` where its server does not answer."""
        block, part = divmod(unit, self._parts)
        shard = int(np.searchsorted(self._first_block, block, side="right")) - 1
        text = self._shards[shard].block(block - int(self._first_block[shard]))
        return text.part(part, self._parts) if self._parts > 1 else text

    def _owned(self, epoch: int, units: np.ndarray) -> np.ndarray:
        if self._shares is None:
            return np.ones(len(units), dtype=bool)
        return self._shares.owned(stable_hash(self._seed, epoch), units)

    def _order_of(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            numbers = np.arange(self.units, dtype=np.uint32)
            self._order = (epoch, np.random.default_rng([self._seed, epoch]).permutation(numbers))
        return self._order[1]
