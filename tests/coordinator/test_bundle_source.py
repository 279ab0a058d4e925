"""Where a run's text can come from, and what is said when it cannot."""

from __future__ import annotations

import shutil

import pytest

from coordinator.bundle_source import prepare_bundle
from data_prep.corpus_folder import write_corpus
from data_prep.documents import Document
from data_prep.heldout import KEYS, load_heldout, save_heldout
from swarm.bundle import HELDOUT_NAME, shard_paths
from swarm.errors import BadInput, OperationFailed
from swarm.identity import Identity
from swarm.spec import RunSpec
from tests.conftest import SEQUENCE_LENGTH, VOCAB_SIZE, made_up_documents
from tests.data_prep.range_server import Server, serving


def spec_of(source: str, **more) -> RunSpec:
    data = {"source": source, "vocab_size": VOCAB_SIZE, "sequence_length": SEQUENCE_LENGTH, "heldout_rows": 8}
    return RunSpec(name="bundle", data=data | more)


def prepare(tmp_path, source: str, identity: Identity | None = None, **more):
    said: list[str] = []
    signed = prepare_bundle(
        tmp_path / "bundle", spec_of(source, **more), tmp_path, identity or Identity.generate(), said.append
    )
    return signed, said


def test_a_corpus_folder_of_data_prep_becomes_a_bundle(tmp_path):
    (tmp_path / "corpus").mkdir()
    write_corpus(tmp_path / "corpus", made_up_documents())
    signed, _said = prepare(tmp_path, "corpus")
    names = {file.name for file in signed.open().files}
    assert {"spec.json", HELDOUT_NAME, "tokenizer/tokenizer.json", "shards/manifest.json"} <= names
    assert shard_paths(tmp_path / "bundle")


def test_a_prepared_folder_is_taken_as_it_is_and_reopened_without_work(tmp_path, prepared_data):
    identity = Identity.generate()
    first, _ = prepare(tmp_path, str(prepared_data), identity)
    again, said = prepare(tmp_path, str(prepared_data), identity)
    assert again.fingerprint == first.fingerprint
    assert said == []


def test_a_new_identity_signs_the_same_files_anew(tmp_path, prepared_data):
    first, _ = prepare(tmp_path, str(prepared_data))
    second, _ = prepare(tmp_path, str(prepared_data))
    assert second.open().files == first.open().files
    assert second.open().authority != first.open().authority


def test_a_changed_file_is_not_served(tmp_path, prepared_data):
    identity = Identity.generate()
    prepare(tmp_path, str(prepared_data), identity)
    (tmp_path / "bundle" / HELDOUT_NAME).write_bytes(b"other rows")
    with pytest.raises(OperationFailed, match="does not match the digest"):
        prepare(tmp_path, str(prepared_data), identity)


@pytest.mark.parametrize("source", ["missing", "."])
def test_a_source_that_is_none_is_named(tmp_path, source):
    with pytest.raises(BadInput, match="has neither documents"):
        prepare(tmp_path, source)


@pytest.fixture
def server(tmp_path, prepared_data):
    shutil.copytree(prepared_data, tmp_path / "served")
    with serving(Server(tmp_path / "served")) as server:
        yield server


def test_of_a_url_only_the_manifest_of_the_shards_is_in_the_bundle(tmp_path, server):
    signed, _said = prepare(tmp_path, f"{server.url}/")
    names = {file.name for file in signed.open().files}
    assert {name for name in names if name.startswith("shards/")} == {"shards/manifest.json"}
    assert {HELDOUT_NAME, "tokenizer/tokenizer.json"} <= names
    assert shard_paths(tmp_path / "bundle") == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda server: server.away.add("*"), "answers 503"),
        (lambda server: (server.folder / HELDOUT_NAME).unlink(), "answers 404"),
        (lambda server: (server.folder / "tokenizer" / "tokenizer.json").write_text("{}"), "is not the one"),
        (lambda server: setattr(server, "spoilt", True), "not those of the manifest"),
        (lambda server: setattr(server, "knows_ranges", False), "does not serve ranges"),
    ],
)
def test_what_is_wrong_at_a_url_is_told_before_the_run_begins(tmp_path, server, spoil, words):
    spoil(server)
    with pytest.raises(BadInput, match=words) as caught:
        prepare(tmp_path, server.url)
    assert "\n" not in str(caught.value)


def test_a_url_where_nobody_listens(tmp_path):
    with pytest.raises(BadInput, match="cannot be fetched"):
        prepare(tmp_path, "http://127.0.0.1:9/corpus")


def test_weights_of_sources_that_are_not_there(tmp_path, prepared_data):
    with pytest.raises(BadInput, match="weights name sources without shards: web"):
        prepare(tmp_path, str(prepared_data), weights={"web": 1.0})
    prepare(tmp_path, str(prepared_data), weights={"made-up": 1.0})


def test_sentence_pairs_that_the_text_cannot_give(tmp_path):
    short = [Document("Одна строка без второй", "web", str(i)) for i in range(300)]
    long = [Document(f"{document.text} Она спит.", "books", document.id) for document in made_up_documents()]
    (tmp_path / "short").mkdir()
    (tmp_path / "both").mkdir()
    write_corpus(tmp_path / "short", short)
    write_corpus(tmp_path / "both", [*short, *long])
    needs = "need documents with two sentences that fit into"
    pairs = {"sentence_pairs": True, "sequence_length": 64}
    with pytest.raises(BadInput, match=f"{needs} 64 tokens together, and the text has none"):
        prepare(tmp_path, "short", **pairs)
    with pytest.raises(BadInput, match="source 'web' has none"):
        prepare(tmp_path, "both", weights={"web": 1.0, "books": 1.0}, **pairs)
    with pytest.raises(BadInput, match=f"{needs} 8 tokens"):
        prepare(tmp_path, "both", sequence_length_start=8, sequence_length_warmup_steps=5, **pairs)
    prepare(tmp_path, "both", **pairs)


def test_a_prepared_folder_whose_parts_do_not_belong_together(tmp_path, prepared_data):
    copy = tmp_path / "copy"
    shutil.copytree(prepared_data, copy)
    rows = load_heldout(copy / HELDOUT_NAME)
    arrays = [rows[key].numpy() for key in KEYS]
    for other in ({"tokenizer_sha256": "0" * 64}, {}):
        save_heldout(copy / HELDOUT_NAME, *arrays, **other)
        with pytest.raises(BadInput, match="held-out set was made with another tokenizer"):
            prepare(tmp_path, str(copy))
        arrays[0] = arrays[0] + VOCAB_SIZE
    shutil.copyfile(prepared_data / HELDOUT_NAME, copy / HELDOUT_NAME)
    shard = next((copy / "shards").glob("*.arrow"))
    others = tmp_path / "others.arrow"
    shutil.copyfile(shard, others)
    with others.open("r+b") as file:
        file.seek(shard.stat().st_size // 2)
        file.write(b"1")
    whole = shard.read_bytes()
    shutil.copyfile(others, shard)
    with pytest.raises(BadInput, match="is not the shard that its manifest lists"):
        prepare(tmp_path, str(copy))
    shard.write_bytes(whole)
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(BadInput, match="damaged or cut short"):
        prepare(tmp_path, str(copy))
    shard.unlink()
    with pytest.raises(BadInput, match="no shard at"):
        prepare(tmp_path, str(copy))
    tokenizer = copy / "tokenizer" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text() + "\n")
    with pytest.raises(BadInput, match="not the one that its shards were written with"):
        prepare(tmp_path, str(copy))
