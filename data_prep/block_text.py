"""Tokenized documents: one, and those of a block one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class TokenizedDocument:
    """Ids of one document without special tokens, and the end of each sentence in ids."""

    input_ids: np.ndarray
    sentence_ends: np.ndarray


@dataclass(frozen=True)
class BlockText:
    """Documents one after the other: document i is ``ids[offsets[i]:offsets[i + 1]]``, and its sentences' ends
    ``ends[end_offsets[i]:end_offsets[i + 1]]``, counted from the document's beginning.
    """

    ids: np.ndarray
    offsets: np.ndarray
    ends: np.ndarray
    end_offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def part(self, index: int, parts: int) -> BlockText:
        """Part ``index`` of so many parts of about equal numbers of documents."""
        first, last = index * len(self) // parts, (index + 1) * len(self) // parts
        offsets, end_offsets = self.offsets[first : last + 1], self.end_offsets[first : last + 1]
        return BlockText(
            self.ids[offsets[0] : offsets[-1]],
            offsets - offsets[0],
            self.ends[end_offsets[0] : end_offsets[-1]],
            end_offsets - end_offsets[0],
        )

    def documents(self) -> Iterator[TokenizedDocument]:
        for i in range(len(self)):
            yield TokenizedDocument(
                self.ids[self.offsets[i] : self.offsets[i + 1]],
                self.ends[self.end_offsets[i] : self.end_offsets[i + 1]],
            )

    def check(self, vocab_size: int) -> None:
        """Raise ``ValueError`` unless these are documents that a writer can have written: none empty, ids in the
        vocabulary, sentences that end one after the other and the last of them with its document.
        """
        lengths, sentences = np.diff(self.offsets), np.diff(self.end_offsets)
        if not len(lengths) or lengths.min() < 1 or sentences.min() < 1:
            raise ValueError("a document without text")
        if (len(self.ids), len(self.ends)) != (self.offsets[-1], self.end_offsets[-1]):
            raise ValueError("its documents are longer than its text")
        if int(self.ids.max()) >= vocab_size:
            raise ValueError(f"id {self.ids.max()} is outside its vocabulary of {vocab_size}")
        within = np.diff(self.ends.astype(np.int64), prepend=0)
        within[self.end_offsets[1:-1]] = self.ends[self.end_offsets[1:-1]]
        if within.min() < 1 or (self.ends[self.end_offsets[1:] - 1] != lengths).any():
            raise ValueError("sentences that do not end in their documents")
