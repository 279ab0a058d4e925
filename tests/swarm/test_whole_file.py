"""Files written beside their place: synced before they take it, and the old one stays where the disk refuses."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from swarm.whole_file import write_whole


def test_a_file_has_the_rights_that_were_asked_for(tmp_path):
    write_whole(tmp_path / "ticket.json", b"{}", mode=0o600)
    assert stat.S_IMODE((tmp_path / "ticket.json").stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["ticket.json"]


def test_a_disk_that_refuses_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "settings.json"
    write_whole(path, b"old")

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space left"):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_what_is_renewed_all_the_time_is_replaced_without_a_sync(tmp_path, monkeypatch):
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for content in (b"1", b"2"):
        write_whole(Path(tmp_path / "status.json"), content, lasting=False)
    assert (tmp_path / "status.json").read_bytes() == b"2"
    assert synced == []
