"""`totals.json` is written now and then: what a crash takes from it is credited again, and never twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from coordinator.history import History
from coordinator.totals import FORGOTTEN_AFTER_SECONDS, Counters
from coordinator.totals_file import KEEP_EVERY_SECONDS, TotalsFile
from tests.coordinator.runs import T0, peer, run_status

PEER = peer(1).peer_id


class Coordinator:
    """One start of a coordinator: what its tracker counts goes into the totals and from there into the history."""

    def __init__(self, directory: Path, now: float) -> None:
        self.now = now
        self.file = TotalsFile(directory / "totals.json", clock=lambda: self.now)
        self.history = History(directory / "history.sqlite")

    def look(self, contributed: int, seconds: float = 1.0) -> None:
        self.now += seconds
        self.file.totals.count(PEER, Counters(computed=contributed, contributed=contributed))
        shown = peer(1, samples=self.file.totals.by_peer[PEER].contributed)
        self.history.record_status(run_status(shown), self.now)
        self.file.keep()

    @property
    def samples(self) -> tuple[int, int]:
        """In all, as the totals and as the history have them."""
        return self.file.totals.all.contributed, self.history.contributors()[0]


@pytest.fixture
def first(tmp_path: Path) -> Coordinator:
    """Killed before the file has heard of the last 50 samples of 1050."""
    coordinator = Coordinator(tmp_path, T0)
    coordinator.look(1000, seconds=KEEP_EVERY_SECONDS)
    coordinator.look(1050)
    coordinator.history.close()
    return coordinator


def test_what_the_file_has_missed_is_credited_once(first: Coordinator, tmp_path: Path) -> None:
    second = Coordinator(tmp_path, T0 + 60)
    assert second.file.totals.all.contributed == 1000
    second.look(1080)
    assert second.samples == (1080, 1080)


def test_a_peer_that_started_anew_just_before_the_crash_is_not_credited_twice(tmp_path: Path) -> None:
    first = Coordinator(tmp_path, T0)
    first.look(1000, seconds=KEEP_EVERY_SECONDS)
    for contributed in (1050, 0, 8):
        first.look(contributed)
    assert first.samples == (1058, 1058)
    first.history.close()
    second = Coordinator(tmp_path, T0 + 60)
    second.look(8)
    second.look(20)
    assert second.samples == (1020, 1070)


def test_the_file_is_written_when_something_changed_and_not_at_every_look(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path, T0)
    path = coordinator.file.path
    coordinator.look(10, seconds=KEEP_EVERY_SECONDS)
    written = path.read_bytes()
    path.unlink()
    coordinator.look(20)
    coordinator.look(10 + 10, seconds=KEEP_EVERY_SECONDS - 2)
    assert not path.exists()
    coordinator.look(20)
    assert path.read_bytes() != written
    path.unlink()
    for _look in range(3):
        coordinator.look(20, seconds=KEEP_EVERY_SECONDS)
    coordinator.file.close()
    assert not path.exists()


def test_the_end_writes_what_the_last_seconds_brought(first: Coordinator, tmp_path: Path) -> None:
    first.file.close()
    assert TotalsFile(first.file.path).totals.all.contributed == 1050


def test_an_absence_of_the_coordinator_makes_nobody_forgotten(first: Coordinator, tmp_path: Path) -> None:
    first.file.close()
    second = Coordinator(tmp_path, T0 + 2 * FORGOTTEN_AFTER_SECONDS)
    second.look(1060, seconds=KEEP_EVERY_SECONDS)
    assert second.samples == (1060, 1060)


def test_a_disk_that_refuses_the_last_word_is_told(
    first: Coordinator, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.rmtree(first.file.path.parent)
    first.file.close()
    assert f"{first.file.path} cannot be written" in caplog.text
