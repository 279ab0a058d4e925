"""What a participant keeps is on the disk before it takes the place of what it replaces, and the rename is as well."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from coordinator.last_state import write_last_state
from coordinator.run_directory import RunDirectory
from coordinator.settings_desk import SettingsDesk
from swarm.bundle import pack_bundle
from swarm.credentials import Credentials
from swarm.identity import Identity
from swarm.settings import SettingsBook, SettingsPlan
from swarm.snapshot import Snapshot
from swarm.spec import RunSpec
from swarm.ticket import write_ticket

SPEC = RunSpec(name="power")


def keep_settings(folder: Path) -> None:
    entries = SettingsBook(SPEC).plan(from_step=1, now_at=0, total_steps=7)
    plan = SettingsPlan(version=1, issuer="somebody", entries=tuple(entries))
    SettingsDesk.lay_out(folder / "settings.json", SPEC.run_id, plan)


def keep_ticket(folder: Path) -> None:
    identity = Identity.load_or_create(folder / "identity.key")
    ticket = write_ticket(identity, SPEC.run_id, identity.peer_id, "otter")
    Credentials(folder / "identity.key", folder / "ticket.json").keep(ticket)


def keep_commission(folder: Path) -> None:
    RunDirectory(folder).write_commission("{}")


def keep_bundle(folder: Path) -> None:
    pack_bundle(folder, SPEC, Identity.load_or_create(folder.parent / "identity.key"))


def keep_state(folder: Path) -> None:
    write_last_state(folder / "last_state.safetensors", Snapshot(1, "", [torch.zeros(2)]), SPEC.run_id)


@pytest.mark.parametrize("keep", [keep_settings, keep_ticket, keep_commission, keep_bundle, keep_state])
def test_a_power_cut_after_the_rename_finds_the_content(
    keep: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    renamed: list[str] = []
    fsync, replace = os.fsync, os.replace

    def note_sync(descriptor: int) -> None:
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def note_rename(source: Path, target: Path) -> None:
        assert os.stat(source).st_ino in synced, f"{target} may be empty after a power cut"
        renamed.append(Path(target).name)
        replace(source, target)

    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(os, "replace", note_rename)
    keep(folder)
    assert renamed
    assert folder.stat().st_ino in synced
