"""What every command owes a person: one line that says what was wrong, an exit code, and a traceback when asked for."""

from __future__ import annotations

import importlib
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from data_prep.cli import main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("import",), "Missing argument 'inputs'"),
        (("shard", "x", "-o", "y"), "Missing option '--tokenizer'"),
        (("tokenizer", "x", "-o", "y", "--vocab-size", "-1"), "Invalid value for '--vocab-size'"),
        (("tokenizer", "x", "-o", "y", "--vocab-size", "many"), "Invalid value for '--vocab-size'"),
        (("imprt",), "No such command 'imprt'"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(list(arguments))
    error = capsys.readouterr().err
    assert (stop.value.code, error.count("\n"), error.startswith("error: ")) == (2, 1, True)
    assert words in error


def test_a_defect_is_one_line_and_a_traceback_with_debug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("data_prep.stats.corpus_stats", fail)
    monkeypatch.delenv("ARTEL_DEBUG", raising=False)
    with pytest.raises(SystemExit) as stop:
        main(["stats", "x", "-o", "y"])
    assert stop.value.code == 1
    assert capsys.readouterr().err == "error: ZeroDivisionError: by zero (--debug shows where)\n"
    monkeypatch.setenv("ARTEL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        main(["stats", "x", "-o", "y"])


@pytest.mark.parametrize("package", ["data_prep", "finetune", "peer", "coordinator"])
def test_help_lists_the_option_that_the_errors_name(package: str) -> None:
    app = importlib.import_module(f"{package}.cli").app
    shown = CliRunner(env={"TERMINAL_WIDTH": "120"}).invoke(app, ["--help"])
    assert shown.exit_code == 0
    assert re.search(r"--debug .*Show tracebacks", shown.stdout)


@pytest.mark.parametrize(
    "program",
    [
        ("data_prep", "import", "hf:nobody/nothing", "-o", "out"),
        pytest.param(
            ("finetune", "run", "TERRa", "--model", "m", "--data-dir", "nobody/nothing", "-o", "out"),
            marks=pytest.mark.heavy,  # its imports
        ),
    ],
    ids=["data-prep", "finetune"],
)
def test_a_hub_that_cannot_be_reached_is_one_line(program: tuple[str, ...], tmp_path: Path) -> None:
    """In a process of its own: the hub's address is read when its client is imported."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    code = f"import time; time.sleep = lambda _: None; from {program[0]}.cli import main; main()"
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    environment |= {
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HOME": str(tmp_path / "home"),
        "PYTHONPATH": os.getcwd(),
    }
    result = subprocess.run(
        [sys.executable, "-c", code, *program[1:]],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 2
    lines = [line for line in result.stderr.splitlines() if not line.startswith("reading ")]
    assert (len(lines), lines[0].startswith("error: ")) == (1, True), result.stderr
    assert "nobody/nothing" in lines[0]
