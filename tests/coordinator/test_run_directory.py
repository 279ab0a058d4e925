"""A run directory that cannot be used: a line that says why, and nothing of another run is touched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.run_directory import RunDirectory
from swarm.errors import BadInput, OperationFailed


@pytest.fixture
def spec(tmp_path) -> Path:
    path = tmp_path / "spec.toml"
    path.write_text('name = "one"\n' + "# a comment\n" * 2000)
    return path


@pytest.fixture
def mount(tmp_path) -> Iterator[Callable[[str], Path]]:
    """A file system of its own with these options."""
    disk = tmp_path / "disk"
    disk.mkdir()

    def with_options(options: str) -> Path:
        command = ["mount", "-t", "tmpfs", "-o", options, "none", str(disk)]
        if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("mounting a disk needs root and a container that allows it")
        return disk

    yield with_options
    subprocess.run(["umount", "-l", str(disk)], capture_output=True, check=False)


@pytest.mark.parametrize(
    ("options", "words"), [("ro", "Read-only file system"), ("size=4k", "No space left on device")]
)
def test_a_disk_that_takes_nothing_is_told(spec, mount, options, words):
    with pytest.raises(BadInput, match=rf"cannot be used \({words}\): choose another with --run-dir"):
        RunDirectory(mount(options) / "run").open(spec)


def test_a_second_coordinator_of_the_directory_is_refused(spec, tmp_path):
    first = RunDirectory(tmp_path / "run")
    first.open(spec)
    with pytest.raises(OperationFailed, match="another coordinator already runs in"):
        RunDirectory(tmp_path / "run").open(spec)


@pytest.mark.parametrize(
    "made",
    ["bundle/manifest.json", "commission.json", "history.sqlite", "checkpoints/step-00000001/manifest.json"],
)
def test_a_directory_of_another_run_is_left_alone(spec, tmp_path, made):
    RunDirectory(tmp_path / "run").open(spec)
    (tmp_path / "run" / made).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "run" / made).touch()
    other = tmp_path / "other.toml"
    other.write_text('name = "two"\n')
    with pytest.raises(BadInput, match="holds run one-"):
        RunDirectory(tmp_path / "run").open(other)
    assert (tmp_path / "run" / "run.toml").read_bytes() == spec.read_bytes()


def test_a_first_start_that_failed_leaves_the_directory_to_the_corrected_spec(spec, tmp_path):
    RunDirectory(tmp_path / "run").open(spec)
    spec.write_text('name = "one"\nseed = 7\n')
    assert RunDirectory(tmp_path / "run").open(spec).seed == 7
    assert (tmp_path / "run" / "run.toml").read_bytes() == spec.read_bytes()
