"""Near-duplicates by MinHash LSH: rensa makes the signatures, bands propose pairs, exact Jaccard decides.

Two documents are near-duplicates when the sets of their word shingles have a Jaccard similarity of at least
``threshold``. Signatures only propose: every pair is compared by its true shingle sets before anything is
removed, so the false removals of plain MinHash do not happen. With 21 bands of 6 a pair at similarity 0.8 is
proposed with probability 0.998, at 0.9 with 1 - 3e-8.

Broder, "On the resemblance and containment of documents" (1997); Leskovec et al., "Mining of Massive
Datasets", section 3.4, for the bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from rensa import RMinHash

from data_prep.errors import DataError
from data_prep.shingles import HashedTexts

PERMUTATIONS = 128
ROWS = 6
BANDS = PERMUTATIONS // ROWS
_SEED = 42
_WINDOW = 32
_BEST_OF_LARGE = 8


@dataclass(frozen=True)
class NearSettings:
    """Similarity from which documents count as the same, and the shingle length in words."""

    threshold: float = 0.8
    shingle_words: int = 5

    def __post_init__(self) -> None:
        if not 0.5 <= self.threshold <= 1 or self.shingle_words < 1:
            raise DataError(
                f"near-duplicates need a threshold of 0.5 to 1 and shingles of 1 word or more, "
                f"not {self.threshold} and {self.shingle_words}"
            )


def signatures(shingles: HashedTexts) -> np.ndarray:
    """MinHash signatures, uint32 [documents, PERMUTATIONS]; all zero where a document has no words."""
    if not len(shingles):
        return np.empty((0, PERMUTATIONS), np.uint32)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(
        np.ascontiguousarray(shingles.words), shingles.offsets.astype(np.uint64), PERMUTATIONS, _SEED
    )
    return np.asarray(matrix.to_rows(), dtype=np.uint32)


def duplicates(
    shingles: HashedTexts, sketch: np.ndarray, rank: np.ndarray, settings: NearSettings
) -> np.ndarray:
    """For every document the survivor that replaces it, or -1.

    Documents are visited by ascending ``rank``; one is removed when it is similar enough to one that was kept
    before it. A chain of small changes therefore never removes a document that differs from what is kept.
    """
    replaced_by = np.full(len(shingles), -1, dtype=np.int64)
    pairs = _candidate_pairs(sketch, np.diff(shingles.offsets) > 0, rank)
    sets: dict[int, np.ndarray] = {}
    for survivor, other in pairs:
        if replaced_by[other] >= 0 or replaced_by[survivor] >= 0:
            continue
        for index in (survivor, other):
            if index not in sets:
                sets[index] = np.unique(shingles.text(index))
        if _jaccard(sets[survivor], sets[other]) >= settings.threshold:
            replaced_by[other] = survivor
    return replaced_by


def _candidate_pairs(sketch: np.ndarray, usable: np.ndarray, rank: np.ndarray) -> list[tuple[int, int]]:
    """Pairs that share a band, (better, worse), ordered by the worse one's rank, then the better's."""
    documents = np.flatnonzero(usable)
    documents = documents[np.argsort(rank[documents], kind="stable")]
    count = len(documents)
    found: list[np.ndarray] = []
    for band in range(BANDS):
        keys = _band_hash(sketch[documents, band * ROWS : (band + 1) * ROWS])
        order = np.argsort(keys, kind="stable")  # within a bucket, ranks ascend
        for better, worse in _bucket_pairs(keys[order], order):
            found.append(worse * count + better)
    if not found:
        return []
    worse, better = np.divmod(np.unique(np.concatenate(found)), count)
    return list(zip(documents[better].tolist(), documents[worse].tolist(), strict=True))


def _bucket_pairs(keys: np.ndarray, members: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs (better, worse) of members with equal keys; both arrays are sorted by key.

    All pairs of a bucket of up to ``_WINDOW`` members. In a larger one, members near each other in rank and
    each with the bucket's best: that is the one that survives when the bucket holds copies of one text.
    """
    for distance in range(1, _WINDOW):
        same = np.flatnonzero(keys[distance:] == keys[:-distance])
        if not len(same):
            return
        yield members[same], members[same + distance]
    first = np.searchsorted(keys, keys)
    for best in range(_BEST_OF_LARGE):
        far = np.flatnonzero(np.arange(len(keys)) - first >= _WINDOW)
        yield members[first[far] + best], members[far]


def _band_hash(rows: np.ndarray) -> np.ndarray:
    key = np.zeros(len(rows), np.uint64)
    with np.errstate(over="ignore"):
        for column in range(rows.shape[1]):
            key = (key ^ rows[:, column]) * np.uint64(0x100000001B3)
            key ^= key >> np.uint64(29)
    return key


def _jaccard(left: np.ndarray, right: np.ndarray) -> float:
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)
