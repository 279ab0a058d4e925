"""Ids of space-separated chunks of text, every distinct chunk encoded once.

No piece of our tokenizers spans a space, so the ids of a text are those of its chunks, one after the other. New
chunks are encoded many to a line, which costs the tokenizer less than one by one; where the line's ids end and
begin is seen from the pieces that open a word. A line in which that does not add up, because a chunk contains the
word mark itself, is encoded chunk by chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
from tokenizers import Tokenizer

from data_prep.vocabulary import WORD_START

_LIMIT = 2_000_000
_LINE = 64


class ChunkIds:
    """Looks up ids of split sentences.

    >>> ids, lengths = ChunkIds(backend)([["Мама", "мыла", "раму."]])
    """

    def __init__(self, backend: Tokenizer) -> None:
        self._backend = backend
        vocabulary = backend.get_vocab()
        self._opens = np.zeros(max(vocabulary.values()) + 1, dtype=bool)
        self._opens[[number for piece, number in vocabulary.items() if piece.startswith(WORD_START)]] = True
        self._forget()

    def __call__(self, sentences: Sequence[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """All ids in order, and how many each sentence has."""
        if len(self._numbers) > _LIMIT:
            self._forget()
        chunks = np.fromiter(map(len, sentences), np.int64, len(sentences))
        lookup = map(self._numbers.__getitem__, chain.from_iterable(sentences))
        numbers = np.fromiter(lookup, np.int64, int(chunks.sum()))
        self._encode_new()
        lengths = self._ends[numbers + 1] - self._ends[numbers]
        ends = np.concatenate(([0], np.cumsum(lengths)))
        origin = np.repeat(self._ends[numbers] - ends[:-1], lengths) + np.arange(ends[-1])
        return self._ids[origin], np.diff(ends[np.concatenate(([0], np.cumsum(chunks)))])

    def _forget(self) -> None:
        self._numbers = _Numbers()
        self._ids = np.empty(0, dtype=np.uint32)
        self._ends = np.zeros(1, dtype=np.int64)

    def _encode_new(self) -> None:
        new, self._numbers.new = self._numbers.new, []
        lines = [new[first : first + _LINE] for first in range(0, len(new), _LINE)]
        encoded = self._backend.encode_batch_fast(list(map(" ".join, lines)), add_special_tokens=False)
        parts = [self._line(line, one.ids) for line, one in zip(lines, encoded, strict=True)]
        lengths = np.concatenate([[0], *(lengths for _, lengths in parts)]).astype(np.int64)
        self._ids = np.concatenate([self._ids, *(ids for ids, _ in parts)])
        self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum(lengths)[1:]])

    def _line(self, chunks: list[str], ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
        flat = np.array(ids, dtype=np.uint32)
        starts = np.flatnonzero(self._opens[flat])
        if len(starts) == len(chunks) and starts[0] == 0:
            return flat, np.diff(np.append(starts, len(flat)))
        each = [one.ids for one in self._backend.encode_batch_fast(chunks, add_special_tokens=False)]
        return np.array(list(chain.from_iterable(each)), np.uint32), np.array(list(map(len, each)), np.int64)


class _Numbers(dict[str, int]):
    """Numbers chunks in the order in which they are first asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []

    def __missing__(self, chunk: str) -> int:
        self.new.append(chunk)
        self[chunk] = number = len(self)
        return number
