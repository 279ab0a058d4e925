"""One source as an endless sequence of token ids: shuffled documents, each followed by a separator.

Everything follows from the seed and the cursor of `windows.py`, so a position is a few numbers and resuming
reads one window, never what came before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from data_prep.block_text import BlockText
from data_prep.windows import Windows


class DocumentFlow:
    """Endless ids over the windows of a walk.

    >>> flow = DocumentFlow(windows, seed=7, separator_id=3)
    >>> ids = flow.take(510)           # the next 510 ids
    >>> flow.windows.cursor            # where the 511th is
    """

    def __init__(self, windows: Windows, *, seed: int, separator_id: int) -> None:
        self.windows = windows
        self._seed, self._separator_id = seed, separator_id
        self._loaded: tuple[int, tuple[int, ...]] | None = None
        self._ids = np.empty(0, dtype=np.int32)

    def take(self, count: int) -> np.ndarray:
        """The next ``count`` ids, over the ends of windows and epochs."""
        parts = []
        while count:
            ids, offset = self._window_ids(), self.windows.cursor.offset
            parts.append(ids[offset : offset + count])
            count -= len(parts[-1])
            self._advance(len(parts[-1]), len(ids))
        return np.concatenate(parts) if len(parts) != 1 else parts[0]

    def skip_separator(self) -> None:
        """Pass over a separator, if that is what comes next."""
        ids, offset = self._window_ids(), self.windows.cursor.offset
        if offset < len(ids) and ids[offset] == self._separator_id:
            self._advance(1, len(ids))

    def _advance(self, count: int, length: int) -> None:
        cursor = self.windows.cursor
        if cursor.offset + count < length:
            self.windows.cursor = replace(cursor, offset=cursor.offset + count)
        else:
            self.windows.advance()

    def _window_ids(self) -> np.ndarray:
        cursor = self.windows.cursor
        if self._loaded != (cursor.window, cursor.units):
            texts = self.windows.load()
            cursor = self.windows.cursor
            rng = np.random.default_rng([self._seed, cursor.window, 1])
            self._ids = _shuffled(texts, self._separator_id, rng)
            self._loaded = (cursor.window, cursor.units)
        return self._ids


def _shuffled(texts: Sequence[BlockText], separator_id: int, rng: np.random.Generator) -> np.ndarray:
    """All documents of the texts in random order, a separator after each."""
    ids = np.concatenate([text.ids for text in texts])
    lengths = np.concatenate([np.diff(text.offsets) for text in texts]).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    order = rng.permutation(len(lengths))
    lengths, starts = lengths[order], starts[order]
    ends = np.cumsum(lengths + 1)
    # position of every output id in the input; a separator's own slot points one past its document
    origin = np.repeat(starts - (ends - lengths - 1), lengths + 1) + np.arange(ends[-1])
    flat = np.append(ids, 0).astype(np.int32)[origin]
    flat[ends - 1] = separator_id
    return flat
