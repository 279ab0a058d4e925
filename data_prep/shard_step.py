"""``data-prep shard``: a corpus folder to shards of token ids, on all cores, with a manifest.

Batches go to worker processes and come back in order, so the shards do not depend on how many workers
there are. ``folder/tokenizer`` holds a copy of the tokenizer the shards were written with.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

from data_prep.corpus_folder import count_documents, read_corpus
from data_prep.documents import Document
from data_prep.errors import ShardError
from data_prep.folders import finished_folder
from data_prep.shards import MANIFEST, Manifest, ShardEntry, ShardWriter, TokenizedDocument, file_sha256
from data_prep.tokenize_documents import DocumentTokenizer
from data_prep.tokenizer import load_tokenizer

_BATCH_CHARACTERS = 1 << 20
_AHEAD = 4  # batches in flight per worker

Batch = list[tuple[str, str]]
Result = list[tuple[str, TokenizedDocument]]
_tokenize: DocumentTokenizer | None = None


def shard_corpus(
    input_dir: str | Path,
    tokenizer_dir: str | Path,
    output_dir: str | Path,
    *,
    workers: int | None = None,
    shard_tokens: int = 1 << 26,
    progress: Callable[[int, int], None] | None = None,
) -> Manifest:
    """Write ``output_dir``; ``progress`` is called with documents done and their total.

    Raises ``DataError`` when the corpus or the tokenizer cannot be read or nothing is left to write.
    """
    tokenizer = load_tokenizer(tokenizer_dir)
    total, done = count_documents(input_dir), 0
    with finished_folder(Path(output_dir)) as folder:
        writers: dict[str, ShardWriter] = {}
        with _tokenizing(str(tokenizer_dir), workers or os.cpu_count() or 1) as tokenize:
            for results in tokenize(_batches(read_corpus(input_dir))):
                for source, document in results:
                    if source not in writers:
                        writers[source] = ShardWriter(folder, source, len(tokenizer), shard_tokens)
                    writers[source].write(document)
                done += len(results)
                if progress:
                    progress(done, total)
        entries = [entry for source in sorted(writers) for entry in writers[source].close()]
        return _finish(folder, Path(tokenizer_dir), len(tokenizer), entries)


def _finish(folder: Path, tokenizer_dir: Path, vocab_size: int, entries: list[ShardEntry]) -> Manifest:
    if not entries:
        raise ShardError("no document has any words: nothing was written")
    manifest = Manifest(file_sha256(tokenizer_dir / "tokenizer.json"), vocab_size, tuple(entries))
    shutil.copytree(tokenizer_dir, folder / "tokenizer")
    (folder / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


@contextmanager
def _tokenizing(tokenizer_dir: str, workers: int) -> Iterator[Callable[[Iterable[Batch]], Iterator[Result]]]:
    """A function that maps batches to results in order, in this process or in ``workers`` others."""
    if workers == 1:
        _start_worker(tokenizer_dir)
        yield lambda batches: map(_work, batches)
        return
    # fork would copy locks of running threads: tokenizers and Arrow both have some
    context = multiprocessing.get_context("spawn")
    with context.Pool(workers, _start_worker, (tokenizer_dir,)) as pool:
        yield lambda batches: _in_order(pool, batches, workers * _AHEAD)


def _in_order(pool: multiprocessing.pool.Pool, batches: Iterable[Batch], ahead: int) -> Iterator[Result]:
    """``imap`` that reads no more than ``ahead`` batches ahead, so memory does not grow with the corpus."""
    iterator = iter(batches)
    waiting = [pool.apply_async(_work, (batch,)) for batch in islice(iterator, ahead)]
    while waiting:
        yield waiting.pop(0).get()
        waiting += [pool.apply_async(_work, (batch,)) for batch in islice(iterator, 1)]


def _start_worker(tokenizer_dir: str) -> None:
    global _tokenize
    _tokenize = DocumentTokenizer(load_tokenizer(tokenizer_dir))


def _work(batch: Batch) -> Result:
    if _tokenize is None:
        raise RuntimeError("the worker was not started")
    documents = _tokenize([text for _, text in batch])
    return [(source, document) for (source, _), document in zip(batch, documents, strict=True)]


def _batches(documents: Iterable[Document]) -> Iterator[Batch]:
    batch: Batch = []
    size = 0
    for document in documents:
        batch.append((document.source, document.text))
        size += len(document.text)
        if size >= _BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
