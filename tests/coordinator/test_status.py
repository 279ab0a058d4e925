"""`coordinator status` of what a coordinator has written, or a disk has left of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.main import get_command

from coordinator.cli import app
from coordinator.run_directory import RunDirectory
from data_prep.command_line import exit_code_of
from tests.coordinator.runs import peer, run_status


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    directory.write_status(run_status())
    return directory


def status(directory: RunDirectory) -> int:
    arguments = ["status", "--run-dir", str(directory.path)]
    return exit_code_of(lambda: get_command(app)(arguments, standalone_mode=False))


@pytest.mark.parametrize(
    ("content", "reason"), [(b'{"run_id": "de', "Invalid JSON"), (b"{}", "`run_id`: Field required")]
)
def test_a_damaged_status_is_told_with_what_to_do(directory, capsys, content, reason):
    directory.status_path.write_bytes(content)
    assert status(directory) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {directory.status_path} cannot be read ({reason}")
    assert "start `coordinator run`" in error
    assert "validation error" not in error


def test_one_of_a_thing_is_not_told_as_many(directory, capsys):
    directory.write_status(run_status(peer(1, samples=1)))
    assert status(directory) == 0
    assert "1 peer, " in (one := capsys.readouterr().out)
    assert ", 1 sample, " in one
    directory.write_status(run_status(peer(1, samples=2), peer(2)))
    assert status(directory) == 0
    assert "2 peers, " in (several := capsys.readouterr().out)
    assert ", 2 samples, " in several
