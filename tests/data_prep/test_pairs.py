"""Sentence-pair rows and the length schedule."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from data_prep.errors import DataError, ShardError
from data_prep.length_schedule import LengthSchedule
from data_prep.masking import WholeWordMasker
from data_prep.pairs import cut_pairs
from data_prep.prepare import PreparedCorpus
from data_prep.shards import ShardReader
from data_prep.stream import TrainingStream


def test_documents_are_cut_at_sentences() -> None:
    ids = np.arange(100, 161)
    pairs = cut_pairs(ids, np.array([10, 20, 30, 40, 58, 61]), room=30)
    assert [(first.tolist(), second.tolist()) for first, second in pairs] == [
        (list(range(100, 110)), list(range(110, 130))),
        (list(range(130, 140)), list(range(140, 158))),
    ]
    assert cut_pairs(ids, np.array([60]), room=100) == []
    assert cut_pairs(ids, np.array([30, 60]), room=40) == []


@pytest.fixture
def stream(prepared: PreparedCorpus, masker: WholeWordMasker):
    with TrainingStream(
        prepared.shard_paths, masker, sequence_length=64, batch_size=8, seed=3, sentence_pairs=True
    ) as stream:
        yield stream


def test_rows_and_labels(stream: TrainingStream, prepared: PreparedCorpus, tokenizer) -> None:
    texts = {
        "".join(map(chr, document.input_ids))
        for path in prepared.shard_paths
        for document in ShardReader(path).all_documents()
    }
    labels = []
    for _ in range(20):
        batch = next(stream)
        original = torch.where(batch["labels"] != -100, batch["labels"], batch["input_ids"])
        for row, types, mask, label in zip(
            original.tolist(),
            batch["token_type_ids"].tolist(),
            batch["attention_mask"].tolist(),
            batch["sentence_order_label"].tolist(),
            strict=True,
        ):
            real = [token for token, keep in zip(row, mask, strict=True) if keep]
            assert real[0] == tokenizer.cls_token_id
            middle = real.index(tokenizer.sep_token_id)
            assert real[-1] == tokenizer.sep_token_id
            assert types[: len(real)] == [0] * (middle + 1) + [1] * (len(real) - middle - 1)
            assert not any(types[len(real) :])
            parts = ["".join(map(chr, part)) for part in (real[1:middle], real[middle + 1 : -1])]
            joined = parts[1] + parts[0] if label else parts[0] + parts[1]
            assert any(joined in text for text in texts)
            labels.append(label)
    assert 0.35 < np.mean(labels) < 0.65


def test_resumes_with_the_next_pair(stream: TrainingStream, prepared: PreparedCorpus, masker) -> None:
    for _ in range(5):
        next(stream)
    state = json.loads(json.dumps(stream.state_dict()))
    expected = [next(stream) for _ in range(40)]
    options = {"sequence_length": 64, "batch_size": 8, "seed": 3}
    with TrainingStream(prepared.shard_paths, masker, sentence_pairs=True, **options) as resumed:
        resumed.load_state_dict(state)
        for batch in expected:
            again = next(resumed)
            assert all(torch.equal(again[key], batch[key]) for key in batch)


def test_rows_too_short_for_two_sentences(prepared: PreparedCorpus, masker: WholeWordMasker) -> None:
    options = {"sequence_length": 8, "batch_size": 1, "seed": 0}
    with (
        TrainingStream(prepared.shard_paths, masker, sentence_pairs=True, **options) as stream,
        pytest.raises(ShardError, match="two sentences"),
    ):
        next(stream)


def test_length_schedule() -> None:
    schedule = LengthSchedule(256, 2048, 1000)
    lengths = [schedule(step) for step in range(0, 1200, 50)]
    assert (lengths[0], lengths[-1]) == (256, 2048)
    assert lengths == sorted(lengths)
    assert all(length % 64 == 0 for length in lengths)
    assert LengthSchedule(128, 128, 0)(0) == 128
    with pytest.raises(DataError, match="grow"):
        LengthSchedule(512, 256, 10)
