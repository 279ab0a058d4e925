"""`data-prep shard` on all cores against the tokenizer's own batch call on all cores, interleaved in one run.

    python -m benchmarks.sharding [--corpus FOLDER] [--megabytes 40] [--algorithm unigram]

The tokenizer gets the texts as Python strings and only makes ids; sharding reads the corpus folder, finds sentences,
sets documents aside for the held-out set, writes and digests shards. Beside the ratio of elapsed times stands that of
processor times (of all threads and processes), which other programs on the machine disturb less. Text: `corpus/` of
the folder in ARTEL_DATA_DIR or ../shared/data if there is one, else the built-in corpus.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from tokenizers import Tokenizer

from benchmarks.interleaved import median_ratio, time_in_turns
from data_prep.builtin import iter_documents
from data_prep.corpus_folder import read_corpus, write_corpus
from data_prep.damage import DamageReport
from data_prep.documents import Document
from data_prep.readers import Fields, read_file
from data_prep.shard_step import shard_corpus
from data_prep.tokenizer import save_tokenizer
from data_prep.train_tokenizer import train_tokenizer


def real_text() -> Path | None:
    """The folder of sources beside the checkout, if it is there."""
    beside = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("ARTEL_DATA_DIR", beside)) / "corpus"
    return folder if folder.is_dir() else None


def documents_of(corpus: Path | None) -> Iterator[Document]:
    """Documents of a corpus folder, of the real text, or of the built-in corpus."""
    if corpus is not None:
        yield from read_corpus(corpus)
    elif (folder := real_text()) is not None:
        for path in sorted(folder.rglob("*.jsonl.gz")):
            yield from read_file(path, path.parent.name, Fields(), DamageReport())
    else:
        yield from iter_documents()


def first_megabytes(documents: Iterator[Document], megabytes: float) -> Iterator[Document]:
    left = int(megabytes * 1e6)
    for document in documents:
        if left <= 0:
            return
        left -= len(document.text.encode())
        yield document


def processor_seconds() -> float:
    """Of this process and its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--megabytes", type=float, default=40)
    parser.add_argument("--algorithm", choices=["unigram", "bpe"], default="unigram")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    documents = list(first_megabytes(documents_of(options.corpus), options.megabytes))
    texts = [document.text for document in documents]
    size = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (folder / "corpus").mkdir()
        write_corpus(folder / "corpus", documents)
        save_tokenizer(train_tokenizer(texts[::4], 16_384, options.algorithm), folder / "tokenizer")

        def tokenize() -> (
            None
        ):  # loaded anew each time, as its cache of words would make the next round quicker
            backend = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
            backend.encode_batch_fast(texts, add_special_tokens=False)

        def shard() -> None:
            shutil.rmtree(folder / "shards", ignore_errors=True)
            shard_corpus(folder / "corpus", folder / "tokenizer", folder / "shards")

        processor: dict[str, float] = {"tokenizer": 0.0, "shard": 0.0}

        def counted(name: str, call: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                before = processor_seconds()
                call()
                processor[name] += processor_seconds() - before

            return run

        competitors = {"tokenizer": counted("tokenizer", tokenize), "shard": counted("shard", shard)}
        seconds = time_in_turns(competitors, options.rounds, warmup=0)
    best = {name: min(values) for name, values in seconds.items()}
    print(f"{size:.0f} MB of {len(texts)} documents, {options.algorithm}, {os.cpu_count()} cores")
    print(f"tokenizer's own batch call {size / best['tokenizer']:.1f} MB/s")
    print(f"data-prep shard            {size / best['shard']:.1f} MB/s")
    print(f"ratio of elapsed times {median_ratio(seconds, 'tokenizer', 'shard'):.2f} (0.9 wanted)")
    print(f"ratio of processor times {processor['tokenizer'] / processor['shard']:.2f}")


if __name__ == "__main__":
    main()
