"""The data-prep command from raw files to a stream, and its errors."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from pathlib import Path

import pytest

from data_prep.cli import main
from data_prep.corpus_folder import write_corpus
from data_prep.folders import finished_folder
from data_prep.heldout import load_heldout
from data_prep.masking import WholeWordMasker
from data_prep.prepare import open_prepared, write_shards
from data_prep.shards import ShardReader, file_sha256
from data_prep.stream import TrainingStream
from data_prep.tokenizer import load_tokenizer

from .conftest import make_documents

HELDOUT = ("--heldout-fraction", 0.1, "--heldout-rows", 16, "--sequence-length", 32)


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    for source in ("сказки", "новости"):
        (tmp_path / "raw" / source).mkdir(parents=True)
        rows = [json.dumps({"text": d.text, "id": d.id}) for d in make_documents(300, source)]
        (tmp_path / "raw" / source / "a.jsonl").write_text("\n".join([*rows, "{"]))
    return tmp_path / "raw"


def test_all_steps(raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = {name: tmp_path / name for name in ("imported", "clean", "dedup", "tokenizer", "shards", "stats")}
    steps = [
        ("import", raw, "--output", tmp_path / "imported"),
        ("clean", tmp_path / "imported", "-o", tmp_path / "clean", "--skip", "quality"),
        ("dedup", out["clean"], "-o", out["dedup"], "--span-words", 0),
        ("tokenizer", out["dedup"], "-o", out["tokenizer"], "--vocab-size", 512),
        (
            "shard",
            tmp_path / "dedup",
            "-o",
            tmp_path / "shards",
            "--tokenizer",
            tmp_path / "tokenizer",
            "--workers",
            1,
            *HELDOUT,
        ),
        ("stats", tmp_path / "dedup", "-o", tmp_path / "stats", "--history", tmp_path / "clean"),
    ]
    results = {step[0]: _run(capsys, *step, "--json") for step in steps}
    assert {name: result[0] for name, result in results.items()} == dict.fromkeys(results, 0)
    told = {name: json.loads(result[1]) for name, result in results.items()}
    assert told["import"]["damage"]["lost"] == 2
    assert told["clean"]["read"] == 600
    assert 1 < told["tokenizer"]["fertility"] < 6
    assert [row["source"] for row in told["stats"]["sources"]] in (
        ["новости", "сказки"],
        ["сказки", "новости"],
    )
    assert sum(row["share"] for row in told["stats"]["sources"]) == pytest.approx(1, abs=1e-4)
    page = (tmp_path / "stats" / "stats.html").read_text()
    assert "class=share" in page
    assert "http" not in page
    prepared = open_prepared(tmp_path / "shards")
    manifest, rows = prepared.manifest, load_heldout(prepared.heldout_path)["input_ids"]
    assert rows.shape == (16, 32)
    assert 0.85 < manifest.documents / told["dedup"]["documents"] < 0.95
    masker = WholeWordMasker(load_tokenizer(tmp_path / "shards" / "tokenizer"))
    with TrainingStream(prepared.shard_paths, masker, sequence_length=32, batch_size=2, seed=0) as stream:
        assert next(stream)["input_ids"].shape == (2, 32)


def test_shards_do_not_depend_on_the_number_of_workers(
    raw: Path, tmp_path: Path, prepared, capsys: pytest.CaptureFixture[str]
) -> None:
    _run(capsys, "import", raw, "--output", tmp_path / "imported")
    digests = []
    for workers in (1, 2):
        output = tmp_path / f"shards{workers}"
        code, _, err = _run(
            capsys,
            "shard",
            tmp_path / "imported",
            "-o",
            output,
            "--tokenizer",
            prepared.tokenizer_dir,
            "--workers",
            workers,
            *HELDOUT,
        )
        assert code == 0, err
        files = sorted(path for path in output.rglob("*") if path.is_file())
        digests.append([(path.relative_to(output), file_sha256(path)) for path in files])
    assert digests[0] == digests[1]


def test_many_shards_of_one_source(prepared, tokenizer, tmp_path: Path) -> None:
    from data_prep.shards import ShardWriter
    from data_prep.tokenize_documents import tokenize_documents

    documents = make_documents(200)
    writer = ShardWriter(tmp_path, "сказки/а", len(tokenizer), shard_tokens=500, block_tokens=100)
    for tokenized in tokenize_documents(documents, tokenizer):
        writer.write(tokenized)
    entries = writer.close()
    assert len(entries) > 3
    assert all("/" not in entry.file for entry in entries)
    assert sum(len(list(ShardReader(tmp_path / entry.file).all_documents())) for entry in entries) == 200
    write_shards(documents, tokenizer, prepared.tokenizer_dir, tmp_path / "one")
    joined = [
        d.input_ids.tolist() for entry in entries for d in ShardReader(tmp_path / entry.file).all_documents()
    ]
    (one,) = (tmp_path / "one").glob("*.arrow")
    assert joined == [document.input_ids.tolist() for document in ShardReader(one).all_documents()]


@pytest.mark.parametrize(
    "arguments",
    [
        ("import", "absent.txt", "-o", "out"),
        ("clean", ".", "-o", "out"),
        ("dedup", ".", "-o", "out", "--threshold", "3"),
        ("dedup", ".", "-o", "out", "--span-words", "-1"),
        ("tokenizer", ".", "-o", "out"),
        ("tokenizer", ".", "-o", "out", "--algorithm", "wordpiece"),
        ("shard", ".", "-o", "out", "--tokenizer", "absent", "--heldout-fraction", "2"),
        ("shard", ".", "-o", "out", "--tokenizer", "absent"),
        ("stats", ".", "-o", "out"),
        ("cluster", ".", "-o", "out", "--tokenizer", "absent"),
        ("import", "letter.docx", "-o", "out"),
    ],
)
def test_bad_input_is_one_line_and_code_2(
    arguments: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = _run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "step",
    [("clean",), ("dedup",), ("stats",), ("tokenizer",), ("shard", "--tokenizer", "{tokenizer}")],
    ids=lambda step: step[0],
)
def test_a_damaged_part_is_named(
    step: tuple[str, ...], prepared, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus").mkdir()
    write_corpus(tmp_path / "corpus", make_documents(50))
    part = tmp_path / "corpus" / "part-00000.parquet"
    part.write_bytes(part.read_bytes()[:-50])
    options = [option.format(tokenizer=prepared.tokenizer_dir) for option in step[1:]]
    code, out, err = _run(capsys, step[0], tmp_path / "corpus", "-o", tmp_path / "out", *options)
    assert (code, out) == (2, "")
    assert f"error: {part} cannot be read" in err
    assert "Traceback" not in err


def test_a_tokenizer_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus").mkdir()
    write_corpus(tmp_path / "corpus", make_documents(5))
    (tmp_path / "tok").mkdir()
    (tmp_path / "tok" / "tokenizer.json").write_text('{"model": 5')
    arguments = ("shard", tmp_path / "corpus", "-o", tmp_path / "out", "--tokenizer", tmp_path / "tok")
    code, _, err = _run(capsys, *arguments)
    assert (code, err.count("\n")) == (2, 1)
    assert "cannot be read" in err


def test_history_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus").mkdir()
    write_corpus(tmp_path / "corpus", make_documents(5))
    code, _, err = _run(capsys, "stats", tmp_path / "corpus", "-o", tmp_path / "out", "--history", tmp_path)
    assert (code, err.count("\n")) == (2, 1)
    assert "no summary" in err


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    killed = subprocess.Popen(["true"])
    killed.wait()
    abandoned = tmp_path / f".out-{platform.node()}-{killed.pid}-x"
    ours = tmp_path / f".out-{platform.node()}-{os.getpid()}-x"
    for folder in (abandoned, ours):
        folder.mkdir()
    with finished_folder(tmp_path / "out") as folder:
        (folder / "a").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == [ours.name, "out"]
