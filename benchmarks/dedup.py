"""Near-duplicate search against datasketch and rensa's batch call, interleaved in one run.

    python -m benchmarks.dedup [--documents 4000] [--words 300] [--rounds 3] [--corpus FOLDER]

Documents are made of Russian-like words with Russian-like frequencies, or are the first words of those of a corpus
folder; half of them get a copy with one word in a hundred edited. All three start from texts and use shingles of 5
words, 128 permutations and threshold 0.8. ``recall`` is the share of planted copies found, ``false`` the share of
originals without a copy that were flagged. datasketch and rensa only flag documents; artel also compares every pair
by its true similarity.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from datasketch import MinHash, MinHashLSH
from rensa import RMinHash, RMinHashLSH

from data_prep.corpus_folder import read_corpus
from data_prep.near_duplicates import PERMUTATIONS, NearSettings, duplicates, signatures
from data_prep.shingles import hash_words, shingle

SHINGLE, THRESHOLD = 5, 0.8
Find = Callable[[list[str]], np.ndarray]


def make_originals(count: int, words: int, rng: random.Random) -> list[list[str]]:
    letters = "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъ"
    vocabulary = ["".join(rng.choices(letters, k=rng.randint(1, 12))) for _ in range(30_000)]
    weights = [1 / (rank + 3) for rank in range(len(vocabulary))]
    return [rng.choices(vocabulary, weights, k=_length(words, rng)) for _ in range(count)]


def read_originals(corpus: Path, count: int, words: int, rng: random.Random) -> list[list[str]]:
    """So many documents of a corpus folder, spread over all of it; those that are too short are left out."""
    texts = (document.text.split() for document in read_corpus(corpus))
    long_enough = [text[: _length(words, rng)] for text in texts if len(text) >= 3 * words // 2]
    return rng.sample(long_enough, min(count, len(long_enough)))


def with_copies(originals: list[list[str]], rng: random.Random) -> list[str]:
    copies = [_edited(text, rng) for text in originals[: len(originals) // 2]]
    return [" ".join(text) for text in [*originals, *copies]]


def _length(words: int, rng: random.Random) -> int:
    return rng.randint(words // 2, words * 3 // 2)


def _edited(words: list[str], rng: random.Random) -> list[str]:
    words = list(words)
    for start in range(0, len(words), 100):
        words[rng.randrange(start, min(start + 100, len(words)))] = f"правка{rng.randrange(10**6)}"
    return words


def artel(texts: list[str]) -> np.ndarray:
    shingles = shingle(hash_words(texts), SHINGLE)
    settings = NearSettings(THRESHOLD, SHINGLE)
    return duplicates(shingles, signatures(shingles), np.arange(len(texts)), settings) >= 0


def _shingle_sets(texts: list[str]) -> list[list[str]]:
    sets = []
    for text in texts:
        words = text.split()
        sets.append([" ".join(words[i : i + SHINGLE]) for i in range(max(1, len(words) - SHINGLE + 1))])
    return sets


def rensa(texts: list[str]) -> np.ndarray:
    """A flag for both members of a pair: the first of them stays."""
    matrix = RMinHash.digest_matrix_from_token_sets(_shingle_sets(texts), PERMUTATIONS, 42)
    index = RMinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS, num_bands=16)
    return np.array(index.query_duplicate_flags_matrix_one_shot(matrix))


def datasketch(texts: list[str]) -> np.ndarray:
    index, flags = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS), []
    encoded = [[shingle.encode() for shingle in shingles] for shingles in _shingle_sets(texts)]
    for number, sketch in enumerate(MinHash.bulk(encoded, num_perm=PERMUTATIONS)):
        flags.append(bool(index.query(sketch)))
        index.insert(number, sketch)
    return np.array(flags)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--documents", type=int, default=4000)
    parser.add_argument("--words", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--corpus", type=Path, help="folder written by `data-prep dedup`")
    options = parser.parse_args()
    rng = random.Random(0)
    if options.corpus is None:
        originals = make_originals(options.documents, options.words, rng)
    else:
        originals = read_originals(options.corpus, options.documents, options.words, rng)
    texts, count = with_copies(originals, rng), len(originals)
    found: dict[str, Find] = {"artel": artel, "rensa batch": rensa, "datasketch": datasketch}
    seconds: dict[str, list[float]] = {name: [] for name in found}
    flags: dict[str, np.ndarray] = {}
    for _ in range(options.rounds):
        for name, find in found.items():
            started = time.process_time()
            flags[name] = find(texts)
            seconds[name].append(time.process_time() - started)
    best = statistics.median(seconds["artel"])
    print(f"{len(texts)} documents of about {options.words} words, median of {options.rounds} rounds")
    for name in found:
        median = statistics.median(seconds[name])
        copies = flags[name][count:]
        alone = flags[name][count // 2 : count]  # those without a copy
        print(
            f"{name:12} {len(texts) / median:9.0f} documents/s   artel is {median / best:5.2f}x   "
            f"recall {copies.mean():.4f}   false {alone.mean():.5f}"
        )


if __name__ == "__main__":
    main()
