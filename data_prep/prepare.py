"""Documents to everything a run needs: tokenizer, shards, held-out set, in one finished folder.

Deterministic: the same documents, settings and seed give the same digests, which a run's content hash
depends on. All is written beside ``output_dir`` and renamed in the end, so an interrupted preparation leaves
nothing that looks finished.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerFast

from data_prep.block_text import TokenizedDocument
from data_prep.counted import counted
from data_prep.documents import Document
from data_prep.errors import DataError
from data_prep.folders import finished_folder
from data_prep.heldout import save_heldout
from data_prep.manifest import MANIFEST, Manifest, read_manifest
from data_prep.masking import WholeWordMasker
from data_prep.seeds import stable_hash
from data_prep.shards import ShardWriter, file_sha256
from data_prep.tokenize_documents import tokenize_documents
from data_prep.tokenizer import load_tokenizer, save_tokenizer
from data_prep.train_tokenizer import train_tokenizer

TOKENIZER_DIR, SHARDS_DIR, HELDOUT_FILE = "tokenizer", "shards", "heldout.safetensors"
Progress = Callable[[str], None]


@dataclass(frozen=True)
class PreparedCorpus:
    """A finished folder of ``prepare_corpus``."""

    output_dir: Path
    manifest: Manifest

    @property
    def tokenizer_dir(self) -> Path:
        return self.output_dir / TOKENIZER_DIR

    @property
    def manifest_path(self) -> Path:
        return self.output_dir / SHARDS_DIR / MANIFEST

    @property
    def shard_paths(self) -> list[Path]:
        return [self.output_dir / SHARDS_DIR / shard.file for shard in self.manifest.shards]

    @property
    def heldout_path(self) -> Path:
        return self.output_dir / HELDOUT_FILE

    @property
    def vocab_size(self) -> int:
        return self.manifest.vocab_size


def open_prepared(output_dir: str | Path) -> PreparedCorpus:
    """A folder written earlier. Raises ``DataError`` when it is not finished."""
    output_dir = Path(output_dir)
    return PreparedCorpus(output_dir, read_manifest(output_dir / SHARDS_DIR))


def prepare_corpus(
    documents: Iterable[Document],
    output_dir: str | Path,
    *,
    vocab_size: int = 8192,
    sequence_length: int = 128,
    heldout_fraction: float = 0.02,
    heldout_rows: int = 256,
    seed: int = 0,
    tokenizer_dir: str | Path | None = None,
    progress: Progress | None = None,
) -> PreparedCorpus:
    """Split, train the tokenizer (unless ``tokenizer_dir`` is given), write shards and the held-out set.

    ``heldout_fraction`` of the documents, chosen by their ids, never reach the shards; ``heldout_rows``
    masked rows are made of them, fewer when the text does not suffice. Documents are held in memory:
    for larger corpora use the steps of the ``data-prep`` command. Raises ``DataError`` when there is too
    little text or ``output_dir`` is not empty.
    """
    report = progress or (lambda _: None)
    if not 0 < heldout_fraction < 1 or heldout_rows < 1:
        raise DataError(
            "heldout_fraction must lie between 0 and 1 and heldout_rows be positive, "
            f"not {heldout_fraction} and {heldout_rows}"
        )
    output_dir = Path(output_dir)
    with finished_folder(output_dir) as folder:
        report("reading documents")
        training, heldout = split_documents(documents, heldout_fraction, seed)
        if not training or not heldout:
            raise DataError(
                f"{len(training) + len(heldout)} documents are too few to train on and hold some out"
            )
        report(f"{counted(len(training), 'document')} to train on, {len(heldout)} held out")
        if tokenizer_dir is None:
            report(f"training a tokenizer of {vocab_size} pieces")
            tokenizer = train_tokenizer((document.text for document in training), vocab_size)
            save_tokenizer(tokenizer, folder / TOKENIZER_DIR)
        else:
            shutil.copytree(tokenizer_dir, folder / TOKENIZER_DIR)
        tokenizer = load_tokenizer(folder / TOKENIZER_DIR)
        report("writing shards")
        write_shards(training, tokenizer, folder / TOKENIZER_DIR, folder / SHARDS_DIR)
        report("masking the held-out set")
        tokenized = list(tokenize_documents(heldout, tokenizer))
        rows = heldout_ids(tokenized, tokenizer, sequence_length, heldout_rows)
        sources = heldout_sources(tokenized, heldout, sequence_length, len(rows))
        rng = np.random.default_rng([seed, 3])
        input_ids, labels = WholeWordMasker(tokenizer)(rows, rng)
        save_heldout(
            folder / HELDOUT_FILE,
            input_ids,
            rows != tokenizer.pad_token_id,
            labels,
            sources,
            file_sha256(folder / TOKENIZER_DIR / "tokenizer.json"),
        )
    prepared = open_prepared(output_dir)
    manifest = prepared.manifest
    report(f"{manifest.tokens} tokens in {counted(len(manifest.shards), 'shard')}, {len(rows)} held-out rows")
    return prepared


def split_documents(
    documents: Iterable[Document], heldout_fraction: float, seed: int
) -> tuple[list[Document], list[Document]]:
    """Training and held-out documents; where one goes depends on its own name and the seed only."""
    training: list[Document] = []
    heldout: list[Document] = []
    for document in documents:
        (heldout if is_held_out(document, heldout_fraction, seed) else training).append(document)
    return training, heldout


def is_held_out(document: Document, fraction: float, seed: int) -> bool:
    """Whether a document belongs to the held-out part: its name and the seed decide."""
    return stable_hash("heldout", seed, document.source, document.id) / 2**63 < fraction


def write_shards(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerFast, tokenizer_dir: Path, directory: Path
) -> Manifest:
    """Tokenize into ``directory``, source by source, and write the manifest last."""
    directory.mkdir(parents=True)
    entries = []
    by_source = sorted(documents, key=lambda document: document.source)
    for source, group in groupby(by_source, key=lambda document: document.source):
        writer = ShardWriter(directory, source, len(tokenizer))
        for tokenized in tokenize_documents(group, tokenizer):
            writer.write(tokenized)
        entries += writer.close()
    manifest = Manifest(file_sha256(tokenizer_dir / "tokenizer.json"), len(tokenizer), tuple(entries))
    (directory / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
    return manifest


def heldout_ids(
    documents: Iterable[TokenizedDocument], tokenizer: PreTrainedTokenizerFast, length: int, rows: int
) -> np.ndarray:
    """Unmasked rows ``[CLS] … [SEP]`` in document order; only the last row may end in padding."""
    sep = np.array([tokenizer.sep_token_id])
    parts = [part for document in documents for part in (document.input_ids, sep)]
    flat = np.concatenate(parts)[: rows * (length - 2)]
    count = -(-len(flat) // (length - 2))
    body = np.full(count * (length - 2), tokenizer.pad_token_id, dtype=np.int64)
    body[: len(flat)] = flat
    ids_BL = np.full((count, length), tokenizer.sep_token_id, dtype=np.int64)
    ids_BL[:, 0] = tokenizer.cls_token_id
    ids_BL[:, 1:-1] = body.reshape(count, length - 2)
    if body[-1] == tokenizer.pad_token_id:
        ids_BL[-1, -1] = tokenizer.pad_token_id
    return ids_BL


def heldout_sources(
    tokenized: Sequence[TokenizedDocument], documents: Sequence[Document], length: int, rows: int
) -> list[str]:
    """The source of the text in the middle of each row of ``heldout_ids``."""
    ends = np.cumsum([len(document.input_ids) + 1 for document in tokenized])
    middles = np.minimum(np.arange(rows) * (length - 2) + (length - 2) // 2, ends[-1] - 1)
    return [documents[index].source for index in np.searchsorted(ends, middles, side="right")]
