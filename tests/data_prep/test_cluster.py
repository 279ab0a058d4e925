"""The steps on datatrove's local executor: what a Slurm or Ray cluster runs, on this machine."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from data_prep.cluster import ClusterSettings, run_on_cluster
from data_prep.corpus_folder import CorpusWriter, read_corpus
from data_prep.dedup_step import DedupSettings, dedup_corpus
from data_prep.documents import Document
from data_prep.errors import DataError
from data_prep.heldout import load_heldout
from data_prep.prepare import open_prepared
from data_prep.shard_step import HeldoutSettings
from data_prep.shards import ShardReader, file_sha256
from data_prep.tokenize_documents import DocumentTokenizer
from data_prep.tokenizer import load_tokenizer

from .conftest import make_documents

HELDOUT = HeldoutSettings(fraction=0.1, rows=16, length=32)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Three parts of 60 long documents each; the last 30 of the third are those of the first, one word changed."""
    rng = random.Random(0)
    words = [word for document in make_documents(300) for word in document.text.split()]
    texts = [" ".join(rng.choices(words, k=150)) + "." for _ in range(150)]
    texts += [" ".join(["другое", *text.split()[1:]]) for text in texts[:30]]
    folder = tmp_path / "corpus"
    folder.mkdir()
    for part in range(3):
        with CorpusWriter(tmp_path) as writer:
            for index in range(60 * part, 60 * part + 60):
                writer.write(Document(texts[index], ("проза", "news")[index % 2], str(index)))
        (tmp_path / "part-00000.parquet").rename(folder / f"part-{part:05d}.parquet")
    return folder


def _as_set(documents: list[np.ndarray]) -> set[tuple[int, ...]]:
    return {tuple(ids.tolist()) for ids in documents}


def test_stages_of_a_cluster(corpus: Path, prepared, tmp_path: Path) -> None:
    pytest.importorskip("datatrove", reason='needs datatrove: pip install "artel[cluster]"')
    settings = ClusterSettings(tasks=3, workers=1, skip=["quality", "language"], heldout=HELDOUT)
    manifest = run_on_cluster(corpus, tmp_path / "out", prepared.tokenizer_dir, settings)
    assert manifest is not None
    result = open_prepared(tmp_path / "out")
    assert {shard.source for shard in manifest.shards} == {"проза", "news"}
    for path, entry in zip(result.shard_paths, manifest.shards, strict=True):
        assert file_sha256(path) == entry.sha256
        assert len(list(ShardReader(path).all_documents())) == entry.documents
    tasks = [json.loads(path.read_text()) for path in (tmp_path / "out" / "tasks").glob("*.json")]
    held_out = sum(len(task["held_out"]) for task in tasks)
    assert manifest.documents + held_out == 150, "every planted copy is gone, and nothing else"
    dedup_corpus(corpus, tmp_path / "dedup", DedupSettings(span_words=0))
    tokenize = DocumentTokenizer(load_tokenizer(prepared.tokenizer_dir))
    alone = tokenize([document.text for document in read_corpus(tmp_path / "dedup")])
    together = [d.input_ids for path in result.shard_paths for d in ShardReader(path).all_documents()]
    together += [np.asarray(ids) for task in tasks for ids in task["held_out"]]
    assert _as_set(together) == _as_set([document.input_ids for document in alone]), "as on one machine"
    assert load_heldout(result.heldout_path)["input_ids"].shape == (16, 32)
    with pytest.raises(DataError, match="finished already"):
        run_on_cluster(corpus, tmp_path / "out", prepared.tokenizer_dir, settings)


@pytest.mark.parametrize(
    ("wrong", "words"), [({"executor": "spark"}, "there are local"), ({"executor": "slurm"}, "--partition")]
)
def test_wrong_settings(wrong: dict[str, str], words: str) -> None:
    with pytest.raises(DataError, match=words):
        ClusterSettings(**wrong)
