"""TrainingStream: rows, order, exact resumption, mixture."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from data_prep.block_text import BlockText
from data_prep.errors import DataError, ShardError, StreamStateError
from data_prep.masking import WholeWordMasker
from data_prep.prepare import PreparedCorpus, write_shards
from data_prep.shards import ShardReader
from data_prep.shares import Shares
from data_prep.stream import TrainingStream, stream_seed

from .conftest import make_documents

Open = Callable[..., TrainingStream]


@pytest.fixture
def open_stream(prepared: PreparedCorpus, masker: WholeWordMasker):
    opened = []

    def start(paths: list[Path] | None = None, **options) -> TrainingStream:
        settings = {"sequence_length": 32, "batch_size": 4, "seed": 1, **options}
        opened.append(TrainingStream(paths or prepared.shard_paths, masker, **settings))
        return opened[-1]

    yield start
    for stream in opened:
        stream.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "data-prefetch"]


def _original(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.where(batch["labels"] != -100, batch["labels"], batch["input_ids"])


def _same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(left[key], right[key]) for key in left)


def test_rows_are_full_and_framed(open_stream: Open, tokenizer) -> None:
    stream = open_stream()
    for _ in range(20):
        batch = next(stream)
        ids = _original(batch)
        assert {key: (value.dtype, tuple(value.shape)) for key, value in batch.items()} == dict.fromkeys(
            ("input_ids", "attention_mask", "labels"), (torch.int64, (4, 32))
        )
        assert (ids[:, 0] == tokenizer.cls_token_id).all()
        assert (ids[:, -1] == tokenizer.sep_token_id).all()
        assert not (ids == tokenizer.pad_token_id).any()
        assert batch["attention_mask"].all()


def test_an_epoch_holds_every_document_once(open_stream: Open, prepared: PreparedCorpus, tokenizer) -> None:
    expected = Counter(
        tuple(d.input_ids) for path in prepared.shard_paths for d in ShardReader(path).all_documents()
    )
    stream = open_stream()
    flat: list[int] = []
    while stream.state_dict()["cursors"]["all"]["epoch"] == 0:
        rows = _original(next(stream))[:, 1:].tolist()
        flat += [token for row in rows for token in row]
    # rows end in a separator that the text may not have had: compare the ids alone
    seen = [token for token in flat if token != tokenizer.sep_token_id]
    total = sum(len(document) * count for document, count in expected.items())
    assert Counter(seen[:total]) == sum(
        (Counter({t: n * count for t, n in Counter(d).items()}) for d, count in expected.items()), Counter()
    )


def test_seeds_differ_by_peer_and_rank_and_are_stable(open_stream: Open) -> None:
    assert len({stream_seed(0, "a"), stream_seed(0, "b"), stream_seed(0, "a", 1), stream_seed(1, "a")}) == 4
    code = "from data_prep.seeds import stream_seed; print(stream_seed(3, '12D3Koo', 2))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) == stream_seed(3, "12D3Koo", 2)
    first, again, other = (next(open_stream(seed=seed)) for seed in (1, 1, 2))
    assert _same(first, again)
    assert not _same(first, other)


@pytest.mark.parametrize("prefetch", [0, 3])
def test_a_resumed_stream_continues_with_the_next_sample(open_stream: Open, prefetch: int) -> None:
    stream = open_stream(prefetch=prefetch)
    for _ in range(7):
        next(stream)
    state = json.loads(json.dumps(stream.state_dict()))
    expected = [next(stream) for _ in range(400)]  # over the end of several epochs
    resumed = open_stream(prefetch=0)
    resumed.load_state_dict(state)
    assert resumed.samples == 28
    assert all(_same(next(resumed), batch) for batch in expected)


def test_batch_size_and_length_change_between_batches(open_stream: Open) -> None:
    reference = torch.cat(
        [_original(next(s)) for s in [open_stream(prefetch=0, batch_size=1)] for _ in range(10)]
    )
    stream = open_stream(batch_size=2)
    rows = [_original(next(stream))]
    stream.batch_size = 5
    rows.append(_original(next(stream)))
    stream.batch_size = 3
    rows.append(_original(next(stream)))
    assert torch.equal(torch.cat(rows), reference)
    stream.sequence_length = 16
    assert next(stream)["input_ids"].shape == (3, 16)


def test_foreign_positions_are_refused(open_stream: Open) -> None:
    stream = open_stream()
    before = stream.state_dict()
    with pytest.raises(StreamStateError, match="other shards"):
        stream.load_state_dict(open_stream(seed=9).state_dict())
    with pytest.raises(StreamStateError, match="not a position"):
        stream.load_state_dict({"seed": 1})
    for damage in ({"units": [10**6]}, {"units": ["x"]}, {"offset": -1}, {"offset": None}, {"other": 1}):
        cursors = {"all": {**before["cursors"]["all"], **damage}}
        with pytest.raises(StreamStateError, match="not a position"):
            stream.load_state_dict({**before, "cursors": cursors})
    assert stream.state_dict() == before


def test_sources_are_mixed_by_weight(
    open_stream: Open, prepared: PreparedCorpus, tokenizer, tmp_path: Path
) -> None:
    documents = make_documents(50, "малый") + make_documents(400, "большой")
    write_shards(documents, tokenizer, prepared.tokenizer_dir, tmp_path / "shards")
    paths = sorted((tmp_path / "shards").glob("*.arrow"))
    stream = open_stream(paths, weights={"малый": 3, "большой": 1}, batch_size=1)
    for drawn in range(1, 101):
        next(stream)
        rows = stream.state_dict()["rows"]
        assert abs(rows["малый"] - 0.75 * drawn) <= 1
    with pytest.raises(DataError, match="средний"):
        open_stream(paths, weights={"средний": 1})


def test_unusable_shards_are_named(open_stream: Open, prepared: PreparedCorpus, tmp_path: Path) -> None:
    cut = tmp_path / "cut.arrow"
    cut.write_bytes(prepared.shard_paths[0].read_bytes()[:-500])
    with pytest.raises(ShardError, match=r"cut\.arrow"):
        open_stream([cut])
    with pytest.raises(ShardError, match=r"absent\.arrow"):
        open_stream([tmp_path / "absent.arrow"])
    with pytest.raises(DataError, match="batch_size"):
        open_stream(batch_size=0)


def test_a_closed_stream_says_so(open_stream: Open) -> None:
    stream = open_stream()
    next(stream)
    stream.close()
    with pytest.raises(DataError, match="closed"):
        next(stream)


def _numbered_shards(folder: Path, tokenizer, documents: int) -> list[Path]:
    """One document fills one row, and every row has a token of its own."""
    from data_prep.block_text import TokenizedDocument
    from data_prep.shards import ShardWriter

    writer = ShardWriter(folder, "a", len(tokenizer), block_tokens=31)
    for index in range(documents):
        writer.write(TokenizedDocument(np.full(30, 60 + index), np.array([30])))
    return [folder / entry.file for entry in writer.close()]


def test_readers_who_share_the_text_read_it_all_and_nothing_twice(
    open_stream: Open, tokenizer, tmp_path: Path
) -> None:
    speeds = {"fast": 4.0, "slow": 2.0, "new": 0.0}
    paths = _numbered_shards(tmp_path, tokenizer, 200)
    seen: list[int] = []
    shares = {}
    for name in speeds:
        stream = open_stream(
            paths, shares=Shares(7, name, lambda: speeds), seed=stream_seed(7, name), batch_size=1, prefetch=0
        )
        rows = []
        while stream.state_dict()["cursors"]["all"]["epoch"] == 0:
            (row,) = _original(next(stream))
            rows += [int(token) for token in row if token >= 60]
        tokens = sorted(set(rows))
        shares[name] = len(tokens)
        seen += tokens
    assert len(set(seen)) == 200
    assert len(seen) == 200
    assert shares["fast"] > 1.4 * shares["slow"]


def test_the_share_of_one_who_leaves_falls_to_the_others(tokenizer) -> None:
    units = np.arange(10_000)
    before = {name: Shares(0, name, lambda: dict.fromkeys("abc", 1.0)).owned(5, units) for name in "abc"}
    after = {name: Shares(0, name, lambda: dict.fromkeys("ab", 1.0)).owned(5, units) for name in "ab"}
    assert (sum(before.values()) == 1).all()
    assert (sum(after.values()) == 1).all()
    for name in "ab":
        assert (after[name] | ~before[name]).all(), "nobody loses what was theirs"
    ranks = [Shares(0, "a", dict, rank=rank, ranks=3).owned(5, units) for rank in range(3)]
    assert (sum(ranks) == 1).all()
    with pytest.raises(DataError, match="ranks are numbered"):
        Shares(0, "a", dict, rank=3, ranks=3)


def test_one_who_was_away_goes_on_where_the_others_are(open_stream: Open, tokenizer, tmp_path: Path) -> None:
    paths = _numbered_shards(tmp_path, tokenizer, 200)
    stream = open_stream(paths, batch_size=1)
    next(stream)
    in_hand = stream.state_dict()["cursors"]["all"]["units"]
    stream.catch_up(2.5)
    assert 2.5 <= stream.position < 2.51
    assert stream.state_dict()["cursors"]["all"]["units"] == in_hand
    before = stream.position
    stream.catch_up(1.0)
    assert stream.position == before
    while stream.state_dict()["cursors"]["all"]["units"] == in_hand:
        next(stream)
    assert stream.state_dict()["cursors"]["all"]["epoch"] == 2


class _CountingShard(ShardReader):
    """Counts how often its text is read or its length asked for."""

    asked = 0

    @property
    def tokens(self) -> int:
        self.asked += 1
        return super().tokens

    def block(self, index: int) -> BlockText:
        self.asked += 1
        return super().block(index)


def test_to_say_where_it_is_a_stream_reads_no_text(open_stream: Open, tokenizer, tmp_path: Path) -> None:
    shards = [_CountingShard(path) for path in _numbered_shards(tmp_path, tokenizer, 200)]
    stream = open_stream(shards, batch_size=1, prefetch=0)
    next(stream)
    before = [shard.asked for shard in shards]
    for position in (0.5, 1.5, 2.5):
        stream.catch_up(position)
        assert stream.position >= position
    assert [shard.asked for shard in shards] == before


def test_a_shard_has_as_many_tokens_as_its_blocks(prepared: PreparedCorpus) -> None:
    for path in prepared.shard_paths:
        reader = ShardReader(path)
        assert reader.tokens == sum(len(reader.block(index).ids) for index in range(len(reader)))
        reader.close()
