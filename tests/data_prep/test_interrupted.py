"""Steps that are killed, run twice at once, or left without room: nothing half-written is taken for whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from data_prep.cli import main
from data_prep.errors import DataError
from data_prep.folders import finished_folder
from data_prep.shards import file_sha256

from .conftest import make_documents

# Imports once, then runs every command line in a forked child that kills itself when it is about to touch the
# folder for the Nth time (creating a file or a folder, renaming), for N = 1, 2, … until the command gets through.
_KILLED_EVERYWHERE = """
import json, os, signal, sys
from pathlib import Path
from data_prep import cli
import data_prep.import_step, data_prep.cleaning, data_prep.dedup_step, data_prep.tokenizer_step, data_prep.shard_step

def kill_at(count, folder):
    left = [count]
    def hook(event, arguments):
        if event not in ("open", "os.mkdir", "os.rename") or not str(arguments[0]).startswith(folder):
            return
        if event == "open" and not (arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)

def run(arguments, count, folder):
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
        if count:
            kill_at(count, folder)
        try:
            cli.main(arguments)
        except SystemExit as stop:
            os._exit(stop.code or 0)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status)

for arguments in json.loads(sys.argv[1]):
    output = Path(arguments[arguments.index("-o") + 1])
    for count in range(1, 100):
        code = run(arguments, count, str(output.parent))
        if code != -signal.SIGKILL:
            break
        print(json.dumps([arguments[0], count, output.exists()]), flush=True)
    print(json.dumps([arguments[0], "exit", code]), flush=True)
"""

_SHARD_OPTIONS = ("--workers", "1", "--heldout-fraction", "0.1", "--sequence-length", "32")


@pytest.fixture
def steps(tmp_path: Path) -> list[list[str]]:
    """Command lines of a whole preparation; each writes into a folder of its own."""
    (tmp_path / "сказки").mkdir()
    rows = [json.dumps({"text": d.text, "id": d.id}) for d in make_documents(400)]
    (tmp_path / "сказки" / "a.jsonl").write_text("\n".join([*rows, rows[3], rows[7]]))
    out = {name: str(tmp_path / name / "out") for name in ("import", "clean", "dedup", "tokenizer", "shard")}
    return [
        ["import", str(tmp_path / "сказки"), "-o", out["import"]],
        ["clean", out["import"], "-o", out["clean"], "--skip", "quality"],
        ["dedup", out["clean"], "-o", out["dedup"], "--span-words", "0"],
        ["tokenizer", out["dedup"], "-o", out["tokenizer"], "--vocab-size", "512"],
        ["shard", out["dedup"], "-o", out["shard"], "--tokenizer", out["tokenizer"], *_SHARD_OPTIONS],
    ]


def _run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    return int(stop.value.code or 0)


def _contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.heavy
def test_killed_at_every_write(steps: list[list[str]], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_EVERYWHERE, json.dumps(steps)], stdout=subprocess.PIPE, check=True
    )
    told = [json.loads(line) for line in done.stdout.decode().splitlines() if line.startswith("[")]
    killed = [(step, count) for step, count, _ in told if count != "exit"]
    assert {step for step, _ in killed} == {step[0] for step in steps}
    assert not [step for step, count, finished in told if count != "exit" and finished], "half-written output"
    assert [code for _, count, code in told if count == "exit"] == [0] * len(steps)
    after = {step[0]: _contents(tmp_path / step[0]) for step in steps}
    assert all(name.startswith("out/") for contents in after.values() for name in contents), "left beside"
    for step in steps:
        (tmp_path / step[0]).rename(tmp_path / f"{step[0]} after kills")
        assert _run(step) == 0
        assert _contents(tmp_path / step[0]) == after[step[0]]


def test_two_at_once(tmp_path: Path) -> None:
    with finished_folder(tmp_path / "out") as folder:
        (folder / "first").touch()
        with pytest.raises(DataError, match="another process is writing"), finished_folder(tmp_path / "out"):
            raise AssertionError("both write")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "first"]


def test_a_full_disk_is_one_line(
    steps: list[list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """/dev/full stands for the disk wherever a step writes through Python."""
    assert [_run(step) for step in steps[:3]] == [0, 0, 0]
    write_text = Path.write_text

    def full(path: Path, *arguments: object, **options: object) -> int:
        return write_text(Path("/dev/full"), *arguments, **options)  # type: ignore[arg-type]

    capsys.readouterr()
    for step in steps[3:]:
        monkeypatch.setattr(Path, "write_text", full)
        assert _run(step) == 1
        error = capsys.readouterr().err.splitlines()[-1]
        assert error.startswith("error: the disk is full")
        assert list((tmp_path / step[0]).iterdir()) == []
        monkeypatch.undo()
        assert _run(step) == 0


def _die(_batch: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.heavy
def test_a_killed_worker_is_told(
    steps: list[list[str]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert [_run(step) for step in steps[:4]] == [0] * 4
    monkeypatch.setattr("data_prep.shard_step.work", _die)
    assert _run(["2" if argument == "1" else argument for argument in steps[4]]) == 1
    assert "a worker process died" in capsys.readouterr().err
    assert list((tmp_path / "shard").iterdir()) == []
