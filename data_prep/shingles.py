"""Words and word shingles as 64-bit hashes: Arrow splits, numpy combines, no Python loop over words.

A word is a maximal run of letters and digits, lower-cased, ё as е: edits of punctuation, case and that letter
do not make a document different. Hashes are the same in every process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_SEPARATORS = r"[^\p{L}\p{N}]+"
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
    """Split and hash ``texts``."""
    column = texts if isinstance(texts, pa.Array) else pa.array(texts, pa.large_string())
    folded = pc.replace_substring(pc.utf8_lower(column), "ё", "е")
    split = pc.split_pattern_regex(folded, pattern=_SEPARATORS)
    encoded = pc.list_flatten(split).dictionary_encode()
    codes = encoded.indices.to_numpy()
    vocabulary = encoded.dictionary.to_pylist()
    hashes = np.fromiter((_hash(word) for word in vocabulary), np.uint64, len(vocabulary))
    # text that begins or ends with a separator has an empty first or last word
    real = np.fromiter((bool(word) for word in vocabulary), bool, len(vocabulary))[codes]
    lengths = pc.list_value_length(split).fill_null(0).to_numpy()
    ends = np.concatenate(([0], np.cumsum(real)))[np.concatenate(([0], np.cumsum(lengths)))]
    return HashedTexts(hashes[codes[real]], ends.astype(np.int64))


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


def _hash(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
