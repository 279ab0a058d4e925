"""prepare_corpus: deterministic, finished or absent, and what it writes is what the stream reads."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from data_prep.documents import Document
from data_prep.errors import DataError
from data_prep.heldout import load_heldout
from data_prep.prepare import PreparedCorpus, open_prepared, prepare_corpus
from data_prep.shards import ShardReader, file_sha256

SETTINGS = {"vocab_size": 512, "sequence_length": 32, "heldout_fraction": 0.1, "heldout_rows": 16}


def _digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_same_documents_and_seed_give_the_same_files(
    documents: list[Document], prepared: PreparedCorpus, tmp_path: Path
) -> None:
    again = prepare_corpus(documents, tmp_path / "again", seed=0, **SETTINGS)
    assert _digests(again.output_dir) == _digests(prepared.output_dir)
    other = prepare_corpus(documents, tmp_path / "other", seed=1, **SETTINGS)
    assert _digests(other.output_dir) != _digests(prepared.output_dir)


def test_manifest_describes_the_shards(prepared: PreparedCorpus) -> None:
    manifest = open_prepared(prepared.output_dir).manifest
    assert manifest.tokenizer_sha256 == file_sha256(prepared.tokenizer_dir / "tokenizer.json")
    for path, entry in zip(prepared.shard_paths, manifest.shards, strict=True):
        assert file_sha256(path) == entry.sha256
        documents = list(ShardReader(path).all_documents())
        assert len(documents) == entry.documents
        assert sum(len(document.input_ids) for document in documents) == entry.tokens
        assert sum(len(document.sentence_ends) for document in documents) == entry.sentences
        assert all(document.sentence_ends[-1] == len(document.input_ids) for document in documents)


def test_heldout_rows_are_masked_and_absent_from_the_shards(prepared: PreparedCorpus, tokenizer) -> None:
    heldout = load_heldout(prepared.heldout_path)
    assert {key: tuple(value.shape) for key, value in heldout.items()} == dict.fromkeys(heldout, (16, 32))
    assert all(value.dtype == torch.int64 for value in heldout.values())
    predicted = heldout["labels"] != -100
    assert 0.10 < predicted.float().mean() < 0.16
    original = torch.where(predicted, heldout["labels"], heldout["input_ids"])
    training = {
        tuple(d.input_ids) for path in prepared.shard_paths for d in ShardReader(path).all_documents()
    }
    body = original[0].tolist()
    document = body[1 : body.index(tokenizer.sep_token_id)]
    assert tuple(document) not in training


def test_an_interrupted_preparation_leaves_nothing(documents: list[Document], tmp_path: Path) -> None:
    def stop(message: str) -> None:
        if message.startswith("writing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_corpus(documents, tmp_path / "out", seed=0, progress=stop, **SETTINGS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("count", [0, 1])
def test_too_little_text_is_refused(count: int, documents: list[Document], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too few"):
        prepare_corpus(documents[:count], tmp_path / "out", seed=0, **SETTINGS)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_use_is_not_touched(documents: list[Document], tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        prepare_corpus(documents, tmp_path, seed=0, **SETTINGS)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_damaged_heldout_set_is_named(tmp_path: Path) -> None:
    path = tmp_path / "heldout.safetensors"
    path.write_bytes(b"\x00" * 100)
    with pytest.raises(DataError, match=r"heldout\.safetensors"):
        load_heldout(path)
    with pytest.raises(DataError, match=r"absent\.safetensors"):
        load_heldout(tmp_path / "absent.safetensors")
