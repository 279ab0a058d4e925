"""Sharding throughput against the tokenizer's own batch call, interleaved in one run.

    python benchmarks/shard.py [--corpus FOLDER] [--megabytes 6]

Both use one process and one thread on the same texts: ``encode_batch_fast`` on whole documents, and
``DocumentTokenizer``, which also finds sentences. The cache of words is emptied before every round. Without
``--corpus`` (a folder of data-prep) the built-in corpus is used.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

from data_prep.builtin import iter_documents
from data_prep.corpus_folder import read_corpus
from data_prep.tokenize_documents import DocumentTokenizer
from data_prep.tokenizer import train_tokenizer


def texts_of(corpus: Path | None, characters: int) -> Iterator[str]:
    for document in iter_documents() if corpus is None else read_corpus(corpus):
        if characters < 0:
            return
        characters -= len(document.text)
        yield document.text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--megabytes", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    texts = list(texts_of(options.corpus, int(options.megabytes * 550_000)))  # Russian: 1.8 bytes a character
    size = sum(len(text.encode()) for text in texts) / 1e6
    tokenizer = train_tokenizer(texts, 8192)
    seconds: dict[str, list[float]] = {"tokenizer": [], "artel": []}
    for _ in range(options.rounds):
        started = time.process_time()
        whole = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        seconds["tokenizer"].append(time.process_time() - started)
        started = time.process_time()
        ours = DocumentTokenizer(tokenizer)(texts)
        seconds["artel"].append(time.process_time() - started)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    same = sum(
        len(encoding.ids) == len(document.input_ids) for encoding, document in zip(whole, ours, strict=True)
    )
    ratio = median["tokenizer"] / median["artel"]
    print(f"{size:.1f} MB: tokenizer alone {size / median['tokenizer']:.2f} MB/s")
    print(
        f"with sentences {size / median['artel']:.2f} MB/s, {ratio:.2f}x; same ids in {same} of {len(texts)}"
    )


if __name__ == "__main__":
    main()
