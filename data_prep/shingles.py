"""Words and word shingles as 64-bit hashes: Arrow splits, numpy combines, Python sees distinct words only.

A word is a maximal run of letters and digits, lower-cased, ё as е: edits of punctuation, case and that letter
do not make a document different. Hashes are the same in every process.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pandas.util import hash_array

_WORD = re.compile(r"[^\W_]+")
_KEY = "words of corpora"  # 16 bytes for SipHash
_PRIME = np.uint64(0x9E3779B97F4A7C15)  # odd, from the golden ratio: multiplication permutes 64-bit numbers


@dataclass(frozen=True)
class HashedTexts:
    """Word hashes of many texts, one after the other: text i has ``words[offsets[i]:offsets[i + 1]]``."""

    words: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def text(self, index: int) -> np.ndarray:
        return self.words[self.offsets[index] : self.offsets[index + 1]]


def hash_words(texts: Sequence[str] | pa.Array) -> HashedTexts:
    """Split and hash ``texts``; what is between spaces is looked at once, however often it occurs."""
    column = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
    split = pc.utf8_split_whitespace(column)
    encoded = pc.list_flatten(split).dictionary_encode()
    chunk = encoded.indices.to_numpy()
    hashes, first, count = _hash_chunks(encoded.dictionary.to_pylist())
    lengths = count[chunk]
    ends = np.concatenate(([0], np.cumsum(lengths)))
    position = np.repeat(first[chunk] - ends[:-1], lengths) + np.arange(ends[-1])
    chunks_before = np.concatenate(([0], np.cumsum(pc.list_value_length(split).to_numpy())))
    return HashedTexts(hashes[position], ends[chunks_before].astype(np.int64))


def _hash_chunks(chunks: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hashes of the words of all chunks, and where each chunk's begin and how many they are."""
    # chunks have no spaces in them: all are lowered in one call
    lowered = "\n".join(chunks).lower().replace("ё", "е").split("\n") if chunks else []
    words = [[chunk] if chunk.isalnum() else _WORD.findall(chunk) for chunk in lowered]
    flat = np.array(list(itertools.chain.from_iterable(words)), dtype=object)
    count = np.fromiter(map(len, words), np.int64, len(words))
    hashes = hash_array(flat, hash_key=_KEY, categorize=False)
    return hashes, np.cumsum(count) - count, count


def shingle(texts: HashedTexts, size: int) -> HashedTexts:
    """Hashes of all runs of ``size`` words; a shorter text gives one, of all its words."""
    lengths = np.diff(texts.offsets)
    runs = _run_hashes(texts.words, size)
    counts = np.maximum(lengths - size + 1, (lengths > 0).astype(np.int64))
    offsets = np.concatenate(([0], np.cumsum(counts)))
    first = np.repeat(texts.offsets[:-1] - offsets[:-1], counts) + np.arange(offsets[-1])
    hashes = runs[np.minimum(first, len(runs) - 1)] if len(runs) else np.empty(offsets[-1], np.uint64)
    for index in np.flatnonzero((lengths > 0) & (lengths < size)):
        hashes[offsets[index]] = _run_hashes(texts.text(index), int(lengths[index]))[0]
    return HashedTexts(hashes, offsets)


def _run_hashes(words: np.ndarray, size: int) -> np.ndarray:
    """Polynomial hash of every run of ``size`` words, in log2(size) passes by doubling."""
    count = len(words) - size + 1
    if count < 1:
        return np.empty(0, np.uint64)
    runs = np.zeros(count, np.uint64)
    done, block, width, factor = 0, words, 1, _PRIME  # block[i] hashes the ``width`` words from i on
    with np.errstate(over="ignore"):
        while True:
            if size & width:
                runs = runs * factor + block[done : done + count]
                done += width
            if done == size:
                return _mixed(runs)
            block = block[:-width] * factor + block[width:]
            width, factor = 2 * width, factor * factor


def _mixed(hashes: np.ndarray) -> np.ndarray:
    """Finish of splitmix64: low bits depend on all bits."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
