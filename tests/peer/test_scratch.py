"""Where a node keeps its temporary files."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from peer.node import scratch
from peer.node.scratch import BELOW, LOCK, PREFIX, place_for_sockets, scratch_folder
from swarm.errors import OperationFailed


def set_temporary_folder(monkeypatch, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(folder))


def test_sockets_fit_where_the_temporary_folder_has_a_long_path(monkeypatch, tmp_path):
    set_temporary_folder(monkeypatch, tmp_path / ("x" * 100))
    with scratch_folder() as folder:
        assert folder.parent == Path("/tmp")
        assert Path(tempfile.gettempdir()) == folder
        path = str(folder) + BELOW[BELOW.index("/pymp") :]
        Path(path).parent.mkdir()
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path)
    assert not folder.exists()


def test_a_short_temporary_folder_is_used_and_swept(monkeypatch):
    with tempfile.TemporaryDirectory() as name:
        set_temporary_folder(monkeypatch, Path(name))
        dead = Path(name) / f"{PREFIX}dead"
        dead.mkdir()
        (dead / LOCK).touch()
        with scratch_folder() as folder:
            assert folder.parent == Path(name)
            assert not dead.exists()


def test_no_place_for_sockets_is_told_in_words(monkeypatch, tmp_path):
    set_temporary_folder(monkeypatch, tmp_path / ("x" * 100))
    monkeypatch.setattr(scratch, "USUAL_PLACE", str(tmp_path / "missing"))
    with pytest.raises(OperationFailed, match=r"at most 5\d characters"):
        place_for_sockets()
