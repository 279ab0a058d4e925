"""`data-prep shard` on all cores against the tokenizer's own batch call on all cores, in turns in one run.

    python -m benchmarks.sharding [--corpus FOLDER] [--megabytes 40] [--vocab-size 32000] [--algorithm unigram]

The tokenizer gets the texts as Python strings, in one batch, without offsets, and only makes ids. Sharding is the
command as a user calls it: it starts, reads the corpus folder, finds sentences, sets documents aside for the held-out
set, writes and digests shards. What starting takes is measured with the same command on a few documents, and the
ratio of elapsed times given with it and without. Beside stands the ratio of processor times (of all threads and
processes, start included), which other programs on the machine disturb less. Text: `corpus/` of the folder in
ARTEL_DATA_DIR or ../shared/data if there is one, else the built-in corpus.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
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


def a_part_of(documents: list[Document], megabytes: float) -> list[Document]:
    """Evenly spread over all of them, in order."""
    whole = sum(len(document.text.encode()) for document in documents) / 1e6
    chosen, share = [], min(1.0, megabytes / whole)
    for number, document in enumerate(documents):
        if int((number + 1) * share) > int(number * share):
            chosen.append(document)
    return chosen


def processor_seconds() -> float:
    """Of this process and its children that have ended."""
    return sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def command(corpus: Path, tokenizer: Path, output: Path) -> list[str]:
    """`data-prep shard`, by this interpreter."""
    start = "from data_prep.cli import main; main()"
    options = ["--tokenizer", tokenizer, "-o", output, "--heldout-fraction", "0.02"]
    return [sys.executable, "-c", start, "shard", str(corpus), *map(str, options)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--megabytes", type=float, default=40, help="of text, spread over all of it")
    parser.add_argument("--algorithm", choices=["unigram", "bpe"], default="unigram")
    parser.add_argument("--vocab-size", type=int, default=32_000)
    parser.add_argument("--tokenizer", type=Path, help="folder of a tokenizer, instead of training one")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    documents = a_part_of(list(documents_of(options.corpus)), options.megabytes)
    texts = [document.text for document in documents]
    size = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for name, part in {"corpus": documents, "few": documents[:: len(documents) // 200 or 1]}.items():
            (folder / name).mkdir()
            write_corpus(folder / name, part)
        tokenizer = options.tokenizer or folder / "tokenizer"
        if options.tokenizer is None:
            save_tokenizer(train_tokenizer(texts, options.vocab_size, options.algorithm), tokenizer)

        def tokenize() -> None:  # loaded anew each time: its cache of words would make the next round quicker
            backend = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
            backend.encode_batch_fast(texts, add_special_tokens=False)

        def shard(corpus: str) -> Callable[[], None]:
            def run() -> None:
                shutil.rmtree(folder / "shards", ignore_errors=True)
                subprocess.run(command(folder / corpus, tokenizer, folder / "shards"), check=True)

            return run

        processor = {"tokenizer": 0.0, "start": 0.0, "shard": 0.0}

        def counted(name: str, call: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                before = processor_seconds()
                call()
                processor[name] += processor_seconds() - before

            return run

        calls = {"tokenizer": tokenize, "start": shard("few"), "shard": shard("corpus")}
        seconds = time_in_turns(
            {name: counted(name, call) for name, call in calls.items()}, options.rounds, warmup=0
        )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    few = sum(len(text.encode()) for text in texts[:: len(texts) // 200 or 1]) / 1e6
    started = max(0.0, median["start"] - few / size * median["shard"])
    print(f"{size:.0f} MB of {len(texts)} documents, {options.algorithm}, {os.cpu_count()} cores")
    print(f"tokenizer's own batch call {size / median['tokenizer']:.2f} MB/s")
    print(f"data-prep shard            {size / median['shard']:.2f} MB/s, start of {started:.1f} s included")
    print(f"ratio of elapsed times {median_ratio(seconds, 'tokenizer', 'shard'):.2f} (0.9 wanted)")
    print(f"without the start      {median['tokenizer'] / (median['shard'] - started):.2f}")
    print(f"ratio of processor times {processor['tokenizer'] / processor['shard']:.2f}")


if __name__ == "__main__":
    main()
