"""The text of one window after the other, also while servers are away.

A unit whose server does not answer is left out of its window: it is passed over in this epoch. When that
leaves nothing, the server is probably away altogether: then a unit that was read before, and so is cached, is
read again, and the walk stays where it is until the server is back. Without such a unit the reader waits, and says
why.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import replace

from data_prep.block_text import BlockText
from data_prep.errors import ShardUnavailable
from data_prep.walk import Cursor, Walk

RETRY_SECONDS = 1.0
_REMEMBERED = 256


class Windows:
    """Where a reader stands in its walk, and the text there.

    >>> windows = Windows(walk)
    >>> texts = windows.load()          # of the window at windows.cursor
    >>> windows.advance()
    """

    def __init__(
        self, walk: Walk, stopping: threading.Event | None = None, tell: Callable[[str], None] | None = None
    ) -> None:
        self.walk = walk
        self.cursor = Cursor()
        self.units_missed = self.units_repeated = 0
        self._stopping, self._tell = stopping or threading.Event(), tell
        self._reason = ""
        self._read_before: deque[int] = deque(maxlen=_REMEMBERED)

    def load(self) -> list[BlockText]:
        """Text of the cursor's window, or of the next one that has any; raises `ShardUnavailable` if stopped."""
        if not self.cursor.units:
            self.advance()
        while True:
            texts, units = self._readable(self.cursor.units)
            self.units_missed += len(self.cursor.units) - len(units) if units else 0
            if not units:
                texts, units = self._read_again()
            self.cursor = replace(self.cursor, units=units)
            if any(len(text) for text in texts):
                return texts
            self.advance()

    def advance(self) -> None:
        """To the beginning of the next window."""
        self.cursor = self.walk.after(self.cursor)

    @property
    def position(self) -> float:
        """Epochs walked."""
        return self.walk.position(self.cursor)

    def catch_up(self, position: float) -> None:
        """Finish what is in hand and go on no earlier than at `position`."""
        self.cursor = self.walk.at_least(self.cursor, position)

    def _readable(self, wanted: tuple[int, ...]) -> tuple[list[BlockText], tuple[int, ...]]:
        texts, units, missed = [], [], []
        for unit in wanted:
            try:
                texts.append(self.walk.read(unit))
                units.append(unit)
            except ShardUnavailable as error:
                missed.append(str(error))
        self._reason = missed[0] if missed else ""
        self._read_before.extend(unit for unit in units if unit not in self._read_before)
        return texts, tuple(units)

    def _read_again(self) -> tuple[list[BlockText], tuple[int, ...]]:
        """A unit from before; or what of the cursor's window there is, once there is some."""
        wanted, candidates, reason = self.cursor.units, list(self._read_before), self._reason
        random.Random(self.cursor.window).shuffle(candidates)
        for unit in candidates:
            texts, units = self._readable((unit,))
            if units:
                self.units_repeated += 1
                # the walk does not go on: what could not be read is next
                self.cursor = replace(self.cursor, next=self.cursor.first)
                return texts, units
        if self._tell is not None:
            self._tell(f"waiting for text: {reason}")
        while not self._stopping.wait(RETRY_SECONDS):
            texts, units = self._readable(wanted)
            if units:
                return texts, units
        raise ShardUnavailable("no shard can be read")
