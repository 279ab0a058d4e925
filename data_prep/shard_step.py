"""``data-prep shard``: a corpus folder to shards of token ids, on all cores, with a manifest.

Batches go to worker processes and come back in order, so the shards do not depend on how many workers
there are. The folder is one that a run can be started from, as it is or by its URL: ``tokenizer/``, ``shards/``,
and ``heldout.safetensors``, made of documents that are not in the shards.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from data_prep.block_text import TokenizedDocument
from data_prep.corpus_folder import count_documents, read_corpus
from data_prep.documents import Document
from data_prep.errors import DataError, ShardError
from data_prep.folders import finished_folder
from data_prep.heldout import save_heldout
from data_prep.manifest import MANIFEST, Manifest, ShardEntry
from data_prep.masking import WholeWordMasker
from data_prep.prepare import HELDOUT_FILE, SHARDS_DIR, TOKENIZER_DIR, heldout_ids, is_held_out
from data_prep.shards import ShardWriter, file_sha256
from data_prep.tokenize_worker import Batch, Result, start_worker, work
from data_prep.tokenizer import load_tokenizer

_BATCH_CHARACTERS = 1 << 20
_AHEAD = 4  # batches in flight per worker


@dataclass(frozen=True)
class HeldoutSettings:
    """``fraction`` of the documents, chosen by their ids, is held out; ``rows`` of ``length`` tokens are masked."""

    fraction: float = 0.002
    rows: int = 256
    length: int = 512
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.fraction < 1 or self.rows < 1 or self.length < 8:
            raise DataError(
                "the held-out fraction must lie between 0 and 1, its rows be 1 or more, and its length 8 or more, "
                f"not {self.fraction}, {self.rows} and {self.length}"
            )


def shard_corpus(
    input_dir: str | Path,
    tokenizer_dir: str | Path,
    output_dir: str | Path,
    *,
    heldout: HeldoutSettings | None = None,
    workers: int | None = None,
    shard_tokens: int = 1 << 26,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write ``output_dir``; ``progress`` is called with documents done and their total.

    Raises ``DataError`` when the corpus or the tokenizer cannot be read or nothing is left to write.
    """
    tokenizer, settings = load_tokenizer(tokenizer_dir), heldout or HeldoutSettings()
    total, done = count_documents(input_dir), 0
    kept: list[TokenizedDocument] = []
    wanted = settings.rows * settings.length  # ids; more would only fill the memory
    with finished_folder(Path(output_dir)) as folder:
        (folder / SHARDS_DIR).mkdir()
        writers: dict[str, ShardWriter] = {}
        with _tokenizing(str(tokenizer_dir), workers or os.cpu_count() or 1) as tokenize:
            for results in tokenize(_batches(read_corpus(input_dir), settings)):
                for source, held_out, document in results:
                    if held_out:
                        if wanted > 0:
                            kept.append(document)
                            wanted -= len(document.input_ids)
                        continue
                    if source not in writers:
                        writers[source] = ShardWriter(
                            folder / SHARDS_DIR, source, len(tokenizer), shard_tokens
                        )
                    writers[source].write(document)
                done += len(results)
                if progress:
                    progress(done, total)
        entries = [entry for source in sorted(writers) for entry in writers[source].close()]
        return finish_shards(folder, Path(tokenizer_dir), tokenizer, entries, kept, settings)


def finish_shards(
    folder: Path,
    tokenizer_dir: Path,
    tokenizer: PreTrainedTokenizerFast,
    entries: list[ShardEntry],
    held_out: list[TokenizedDocument],
    settings: HeldoutSettings,
) -> Manifest:
    """Write all of a prepared folder but the shards that ``entries`` describe; the manifest comes last."""
    if not any(len(document.input_ids) for document in held_out):
        raise DataError(
            f"a fraction of {settings.fraction} of this corpus is no document at all: "
            "give a larger --heldout-fraction"
        )
    if not entries:
        raise ShardError("no document has any words: nothing was written")
    rows = heldout_ids(held_out, tokenizer, settings.length, settings.rows)
    input_ids, labels = WholeWordMasker(tokenizer)(rows, np.random.default_rng([settings.seed, 3]))
    made_with = file_sha256(tokenizer_dir / "tokenizer.json")
    attention_mask = rows != tokenizer.pad_token_id
    save_heldout(folder / HELDOUT_FILE, input_ids, attention_mask, labels, tokenizer_sha256=made_with)
    shutil.copytree(tokenizer_dir, folder / TOKENIZER_DIR, dirs_exist_ok=True)
    manifest = Manifest(made_with, len(tokenizer), tuple(entries))
    (folder / SHARDS_DIR / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


@contextmanager
def _tokenizing(tokenizer_dir: str, workers: int) -> Iterator[Callable[[Iterable[Batch]], Iterator[Result]]]:
    """A function that maps batches to results in order, in this process or in ``workers`` others."""
    if workers == 1:
        start_worker(tokenizer_dir)
        yield lambda batches: map(work, batches)
        return
    # fork would copy locks of running threads: tokenizers and Arrow both have some
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=start_worker, initargs=(tokenizer_dir,))
    try:
        yield lambda batches: _in_order(pool, batches, workers * _AHEAD)
    except BrokenProcessPool as error:
        raise ChildProcessError(
            "a worker process died (was there too little memory?): run the same command again, with fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _in_order(pool: ProcessPoolExecutor, batches: Iterable[Batch], ahead: int) -> Iterator[Result]:
    """``map`` that reads no more than ``ahead`` batches ahead, so memory does not grow with the corpus."""
    iterator = iter(batches)
    waiting = deque(pool.submit(work, batch) for batch in islice(iterator, ahead))
    while waiting:
        yield waiting.popleft().result()
        waiting.extend(pool.submit(work, batch) for batch in islice(iterator, 1))


def _batches(documents: Iterable[Document], heldout: HeldoutSettings) -> Iterator[Batch]:
    batch: Batch = []
    size = 0
    for document in documents:
        held_out = is_held_out(document, heldout.fraction, heldout.seed)
        batch.append((document.source, held_out, document.text))
        size += len(document.text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
