"""What comes from elsewhere, damaged anywhere: refused in words or harmless, never a crash, never nonsense."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_prep.corpus_folder import count_documents, read_corpus, read_texts
from data_prep.errors import DataError, ShardError, StreamStateError
from data_prep.heldout import load_heldout, load_heldout_sources
from data_prep.manifest import MANIFEST, Manifest, parse_manifest, read_manifest
from data_prep.masking import WholeWordMasker
from data_prep.prepare import PreparedCorpus
from data_prep.shards import ShardReader
from data_prep.stats import corpus_stats
from data_prep.stream import TrainingStream, check_weights

from .conftest import make_documents

MANY = settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([-1, 10**30, 1 << 62, "../../x", "..", "/etc/passwd", "a\0b.arrow", "", float("nan")]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
damage = st.tuples(st.integers(0, 10**6), JSON)


def _places(content: Any, setter: Callable[[Any], None] | None = None) -> list[Callable[[Any], None]]:
    """A function for every value in ``content`` that puts another one there."""
    found = [setter] if setter else []
    items = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in items if isinstance(content, dict | list) else ():

        def put(other: Any, holder: Any = content, at: Any = key) -> None:
            holder[at] = other

        found += _places(value, put) if isinstance(value, dict | list) else [put]
    return found


def _damaged(content: Any, number: int, value: Any) -> Any:
    copy = json.loads(json.dumps(content))
    places = _places(copy)
    places[number % len(places)](value)
    return copy


@MANY
@given(damage)
def test_manifests(prepared: PreparedCorpus, wrong: tuple[int, Any]) -> None:
    text = json.dumps(_damaged(json.loads(prepared.manifest.to_json()), *wrong))
    try:
        manifest = parse_manifest(text)
    except ValueError:
        return
    assert parse_manifest(manifest.to_json()) == manifest
    for shard in manifest.shards:
        assert Path("x", shard.file).resolve().parent == Path("x").resolve()
        assert 0 < shard.blocks <= shard.documents <= shard.tokens < shard.bytes < 1 << 50


@given(st.text() | st.builds(json.dumps, JSON))
def test_what_is_no_manifest(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_manifest(text)


def test_manifests_that_cannot_be_read(prepared: PreparedCorpus, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_bytes(b"\xff\xfe")
    with pytest.raises(ShardError, match=f"{MANIFEST} cannot be read"):
        read_manifest(tmp_path)
    (tmp_path / MANIFEST).write_text("[" * 100_000)
    with pytest.raises(ShardError, match=f"{MANIFEST} cannot be read"):
        read_manifest(tmp_path)
    entry = prepared.manifest.shards[0]
    with pytest.raises(ValueError, match="lists no shards"):
        Manifest("0" * 64, 512, ())
    with pytest.raises(ValueError, match="a shard twice"):
        Manifest("0" * 64, 512, (entry, entry))


@MANY
@given(st.data())
def test_shards(prepared: PreparedCorpus, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(prepared.shard_paths[0].read_bytes())
    # the ends hold schema and footer, of which a change does most
    places = st.one_of(
        st.integers(0, 1500),
        st.integers(len(content) - 1500, len(content) - 1),
        st.integers(0, len(content) - 1),
    )
    for place in data.draw(st.lists(places, min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.arrow"
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, 9]))])
    try:
        reader = ShardReader(path)
        blocks = [reader.block(index) for index in range(len(reader))]
    except ShardError as error:
        told = str(error)
        assert told.startswith(str(path))
        assert "\n" not in told
        return
    for document in (document for block in blocks for document in block.documents()):
        assert 0 < len(document.input_ids) == document.sentence_ends[-1]
        assert document.input_ids.max() < reader.vocab_size


def _shard(path: Path, ids: pa.Array, ends: pa.Array, note: object) -> ShardReader:
    table = pa.table({"input_ids": ids, "sentence_ends": ends})
    schema = table.schema.with_metadata({b"artel": json.dumps(note).encode()})
    with pa.ipc.new_file(str(path), schema) as writer:
        writer.write_table(table.cast(schema))
    return ShardReader(path)


NOTE = {"format": "artel-shards-1", "source": "a", "vocab_size": 512}
IDS, ENDS = pa.list_(pa.uint16()), pa.list_(pa.uint32())


@pytest.mark.parametrize(
    ("ids", "ends", "words"),
    [
        (pa.array([[5, 6], [512]], IDS), pa.array([[2], [1]], ENDS), "id 512 is outside its vocabulary"),
        (pa.array([[5, 6], []], IDS), pa.array([[2], []], ENDS), "a document without text"),
        (pa.array([[5, 6], None], IDS), pa.array([[2], [1]], ENDS), "a document is missing"),
        (pa.array([[5, 6], [7]], IDS), pa.array([[2, 2], [1]], ENDS), "sentences that do not end"),
        (pa.array([[5, 6], [7]], IDS), pa.array([[1], [1]], ENDS), "sentences that do not end"),
        (pa.array([[5, 6], [7]], IDS), pa.array([[3], [1]], ENDS), "sentences that do not end"),
        (pa.array(["a", "b"]), pa.array([[1], [1]], ENDS), "of other types"),
        (pa.array([[1.5], [2]], pa.list_(pa.float32())), pa.array([[1], [1]], ENDS), "of other types"),
    ],
)
def test_shards_that_no_writer_wrote(ids: pa.Array, ends: pa.Array, words: str, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=words):
        _shard(tmp_path / "a.arrow", ids, ends, NOTE).block(0)


@pytest.mark.parametrize("note", [[], {}, {"source": "a"}, {**NOTE, "vocab_size": "many"}])
def test_shards_that_do_not_say_what_they_are(note: object, tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="is not a shard"):
        _shard(tmp_path / "a.arrow", pa.array([[5]], IDS), pa.array([[1]], ENDS), note)


@MANY
@given(damage)
def test_positions(prepared: PreparedCorpus, masker: WholeWordMasker, wrong: tuple[int, Any]) -> None:
    options = {"sequence_length": 16, "batch_size": 1, "seed": 3, "prefetch": 0}
    with TrainingStream(prepared.shard_paths, masker, **options) as stream:
        next(stream)
        state = stream.state_dict()
        position = stream.position
        try:
            stream.load_state_dict(json.loads(json.dumps(_damaged(state, *wrong))))
        except StreamStateError:
            assert stream.state_dict() == state
            assert stream.position == position
        assert next(stream)["input_ids"].shape == (1, 16)
        assert stream.position >= 0
        json.dumps(stream.state_dict(), allow_nan=False)


@given(st.dictionaries(st.sampled_from("abc"), st.floats(), min_size=1))
def test_weights(weights: dict[str, float]) -> None:
    good = all(0 <= weight < float("inf") for weight in weights.values()) and any(weights.values())
    try:
        check_weights(weights, "abc")
    except DataError:
        assert not good
    else:
        assert good


@MANY
@given(st.data())
def test_held_out_sets(prepared: PreparedCorpus, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(prepared.heldout_path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, 600), min_size=1, max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path / "heldout.safetensors"
    path.write_bytes(content)
    try:
        rows = load_heldout(path)
        sources = load_heldout_sources(path)
    except DataError:
        return
    assert len({tensor.shape for tensor in rows.values()}) == 1
    assert rows["input_ids"].dim() == 2
    assert sources is None or len(sources) == len(rows["input_ids"])


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": pa.array([1, 2])}, "column text holds int64"),
        ({"text": pa.array(["a", None])}, "a row has no text"),
        ({"source": pa.array(["a", None])}, "a row has no text, source or id"),
        ({"text": pa.array([b"a", b"\xff\xfe"]).view(pa.string())}, "UTF8"),
        ({"id": None}, "id"),
    ],
)
def test_corpus_folders_of_other_tools(
    columns: dict[str, pa.Array | None], words: str, tmp_path: Path
) -> None:
    whole = {name: pa.array(["один", "два"]) for name in ("text", "source", "id")} | columns
    table = pa.table({name: column for name, column in whole.items() if column is not None})
    pq.write_table(table, tmp_path / "part-00000.parquet")
    with pytest.raises(DataError, match=rf"part-00000\.parquet cannot be read: .*{words}"):
        list(read_corpus(tmp_path))
    if "text" in columns:
        with pytest.raises(DataError, match=words):
            read_texts(tmp_path / "part-00000.parquet")


def test_large_strings_are_text_too(tmp_path: Path) -> None:
    columns = {name: pa.array(["один", "два"], pa.large_string()) for name in ("text", "source", "id")}
    pq.write_table(pa.table(columns), tmp_path / "part-00000.parquet")
    assert [document.text for document in read_corpus(tmp_path)] == ["один", "два"]
    assert count_documents(tmp_path) == 2


@pytest.mark.parametrize("summary", ["[]", "{}", '{"step": 5}', "[" * 100_000, "\0"])
def test_summaries_that_are_none(summary: str, tmp_path: Path) -> None:
    from data_prep.corpus_folder import write_corpus

    write_corpus(tmp_path, make_documents(20))
    (tmp_path / "summary.json").write_text(summary)
    with pytest.raises(DataError, match=r"summary\.json"):
        corpus_stats(tmp_path)


def test_garbage_of_every_length(tmp_path: Path) -> None:
    rng = random.Random(0)
    for size in (0, 1, 8, 100, 5000):
        path = tmp_path / f"{size}.arrow"
        path.write_bytes(rng.randbytes(size))
        with pytest.raises(ShardError, match=path.name):
            ShardReader(path)
        with pytest.raises(DataError, match=path.name):
            load_heldout(path)
