"""The steps of data-prep as datatrove runs them: each task has a rank and its part of the files.

Importing this needs datatrove (`pip install "artel[cluster]"`). Cleaning, shingles and tokenization are the very
functions that run on one machine; the search for near-duplicates over many machines is datatrove's MinHash.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
from datatrove.data import Document as Record
from datatrove.data import DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.dedup import MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.utils.word_tokenizers import WordTokenizer

from data_prep.block_text import TokenizedDocument
from data_prep.cleaning import Cleaner
from data_prep.documents import Document
from data_prep.manifest import MANIFEST, ShardEntry
from data_prep.prepare import SHARDS_DIR, is_held_out
from data_prep.shard_step import HeldoutSettings, finish_shards
from data_prep.shards import ShardWriter
from data_prep.shingles import hash_words, shingle
from data_prep.tokenize_documents import BATCH_DOCUMENTS, DocumentTokenizer
from data_prep.tokenizer import load_tokenizer

TASKS_FOLDER = "tasks"


class Clean(PipelineStep):
    """The rules of `data-prep clean`, and their counts as datatrove's statistics."""

    name, type = "rules", "clean"

    def __init__(self, skip: Iterable[str], request: Iterable[str]) -> None:
        super().__init__()
        self._skip, self._request = tuple(skip), tuple(request)
        Cleaner(self._skip, self._request)  # a wrong name is told before anything is submitted

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        cleaner = Cleaner(self._skip, self._request)
        for record in data:
            if (document := cleaner.clean(_document(record))) is not None:
                record.text = document.text
                yield record
        for name, count in cleaner.counts.items():
            self.stat_update(f"{name}_removed", value=count.removed)
            self.stat_update(f"{name}_changed", value=count.changed)


class Signatures(MinhashDedupSignature):
    """datatrove's MinHash over our shingles: words as `data-prep dedup` knows them."""

    def __init__(self, folder: str, config: MinhashConfig) -> None:
        super().__init__(folder, config, language=_NoWords())

    def get_shingles(self, text: str) -> np.ndarray:
        return shingle(hash_words([text]), self.config.n_grams).words.reshape(-1, 1)


class WriteShards(PipelineStep):
    """Tokenizes what reaches it into shards whose names carry the rank; held-out documents are put aside."""

    name, type = "shards", "tokenize"

    def __init__(self, output_dir: Path, tokenizer_dir: Path, heldout: HeldoutSettings) -> None:
        super().__init__()
        self._output_dir, self._tokenizer_dir, self._heldout = output_dir, tokenizer_dir, heldout

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        tokenizer = load_tokenizer(self._tokenizer_dir)
        tokenize, vocab_size = DocumentTokenizer(tokenizer), len(tokenizer)
        writers: dict[str, ShardWriter] = {}
        kept: list[list[int]] = []
        for record, tokenized in _tokenized(data, tokenize):
            document = _document(record)
            if is_held_out(document, self._heldout.fraction, self._heldout.seed):
                kept.append(tokenized.input_ids.tolist())
                continue
            if document.source not in writers:
                folder = self._output_dir / SHARDS_DIR
                writers[document.source] = ShardWriter(
                    folder, document.source, vocab_size, name=f"{rank:05d}-"
                )
            writers[document.source].write(tokenized)
            yield record
        entries = [entry for source in sorted(writers) for entry in writers[source].close()]
        for entry in entries:
            self.stat_update("tokens", value=entry.tokens)
        content = {"entries": [asdict(entry) for entry in entries], "held_out": kept[: self._heldout.rows]}
        (self._output_dir / TASKS_FOLDER / f"{rank:05d}.json").write_text(json.dumps(content), "utf-8")


class Finish(PipelineStep):
    """One task: the held-out set, the tokenizer and, last, the manifest of what all tasks have written."""

    name, type = "manifest", "tokenize"

    def __init__(self, output_dir: Path, tokenizer_dir: Path, heldout: HeldoutSettings) -> None:
        super().__init__()
        self._output_dir, self._tokenizer_dir, self._heldout = output_dir, tokenizer_dir, heldout

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        yield from data or ()
        tasks = [
            json.loads(path.read_text("utf-8"))
            for path in sorted((self._output_dir / TASKS_FOLDER).glob("*.json"))
        ]
        entries = [ShardEntry(**entry) for task in tasks for entry in task["entries"]]
        kept = [
            TokenizedDocument(np.asarray(ids, np.uint32), np.empty(0, np.uint32))
            for task in tasks
            for ids in task["held_out"]
        ]
        tokenizer = load_tokenizer(self._tokenizer_dir)
        in_order = sorted(entries, key=lambda entry: (entry.source, entry.file))
        finish_shards(self._output_dir, self._tokenizer_dir, tokenizer, in_order, kept, self._heldout)


def prepare_output(output_dir: Path) -> None:
    """Folders that all tasks write into; what tasks of an interrupted attempt left is written over."""
    (output_dir / SHARDS_DIR / MANIFEST).unlink(missing_ok=True)
    for name in (SHARDS_DIR, TASKS_FOLDER):
        (output_dir / name).mkdir(parents=True, exist_ok=True)


def _document(record: Record) -> Document:
    return Document(record.text, str(record.metadata.get("source", "text")), str(record.id))


def _tokenized(
    data: DocumentsPipeline, tokenize: Callable[[list[str]], list[TokenizedDocument]]
) -> Iterator[tuple[Record, TokenizedDocument]]:
    records = iter(data)
    while batch := list(islice(records, BATCH_DOCUMENTS)):
        yield from zip(batch, tokenize([record.text for record in batch]), strict=True)


class _NoWords(WordTokenizer):
    """Stands where datatrove would load a language's word tokenizer, which our shingles do not need."""

    def word_tokenize(self, text: str) -> list[str]:
        return text.split()

    def sent_tokenize(self, text: str) -> list[str]:
        return [text]

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [(0, len(text))]
