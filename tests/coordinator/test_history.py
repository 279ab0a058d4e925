"""The history survives kills, restarts and damage, and answers what it was told."""

import math
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from coordinator.history import History, HistoryError
from coordinator.history_export import csv_lines
from coordinator.history_reader import HistoryReader
from coordinator.replay import status_at
from tests.coordinator.runs import T0, peer, run_status


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "history.sqlite"


@pytest.fixture
def history(path: Path):
    with_history = History(path)
    yield with_history
    with_history.close()


def kinds(history: HistoryReader) -> list[str]:
    return [event["kind"] for event in reversed(history.events())]


def test_counts_by_state_are_read_back_second_by_second(history: History) -> None:
    history.record_status(run_status(peer(1), peer(2, "syncing")), T0)
    history.record_status(run_status(peer(1), peer(2, "averaging")), T0 + 1)
    history.record_status(run_status(peer(1), peer(2, "lost")), T0 + 2)
    counts = history.counts(T0)
    assert counts["t"] == [T0, T0 + 1, T0 + 2]
    assert counts["training"] == [1, 1, 1]
    assert counts["syncing"] == [1, 0, 0]
    assert counts["averaging"] == [0, 1, 0]
    assert counts["lost"] == [0, 0, 1]
    assert counts["online_max"] == [2, 2, 1]


def test_stays_are_intervals_not_rows_per_second(history: History) -> None:
    for second in range(100):
        history.record_status(run_status(peer(1, "syncing" if second < 40 else "training")), T0 + second)
    timeline = history.timeline(T0)
    (row,) = timeline["peers"]
    syncing, training = timeline["states"].index("syncing"), timeline["states"].index("training")
    assert row["stays"] == [0, 40, syncing, 40, 60, training]


def test_events_follow_from_the_statuses(history: History) -> None:
    leaving = peer(2, "leaving", handed_over=312)
    for second, peers in enumerate(
        [
            [peer(1, "syncing")],
            [peer(1), peer(2)],
            [peer(1), leaving],
            [peer(1, samples_accumulated=7)],
            [peer(1, "lost")],
            [],
        ]
    ):
        history.record_status(run_status(*peers), T0 + second)
    sentences = [event["sentence"] for event in reversed(history.events())]
    assert sentences == [
        "otter-1 joined (cpu)",
        "otter-1 has the swarm's state and trains from step 0",
        "otter-2 joined (cpu)",
        "otter-2 left on request and handed over 312 samples",
        "otter-1 fell silent without leaving; up to 7 samples are lost",
    ]


def test_restart_appends_and_shows_the_gap(path: Path, history: History) -> None:
    for second in range(30):
        history.record_status(run_status(peer(1), peer(2)), T0 + second)
    history.close()
    again = History(path)
    for second in range(100, 170):
        peers = [] if second < 103 else [peer(1)]  # heard again only after some seconds
        again.record_status(run_status(*peers), T0 + second)
    counts = again.counts(T0)
    gap = counts["training"].index(None)
    assert counts["t"][gap - 1] == T0 + 29
    assert counts["t"][gap + 1] == T0 + 100
    assert kinds(again) == ["joined", "joined", "restarted", "lost"]
    assert again.events()[0]["peer_id"] == peer(2).peer_id
    first, second = again.timeline(T0)["peers"]
    assert first["stays"][:2] == [0, 29]
    assert first["stays"][3] == 103
    assert second["stays"] == [0, 29, 2]
    again.close()


def test_a_tracker_that_slept_leaves_a_gap_in_the_stays(history: History) -> None:
    for second in (*range(10), *range(100, 110)):
        history.record_status(run_status(peer(1)), T0 + second)
    (row,) = history.timeline(T0)["peers"]
    assert row["stays"] == [0, 9, 2, 100, 10, 2]
    assert kinds(history) == ["joined", "restarted"]


@pytest.mark.heavy
def test_writer_killed_at_any_moment_leaves_a_readable_file(path: Path) -> None:
    writer = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from coordinator.history import History
        from tests.coordinator.runs import T0, peer, run_status
        history = History(Path(sys.argv[1]))
        start = T0 + 1000 * int(sys.argv[2])
        for second in range(1000):
            history.record_status(run_status(*(peer(n, samples=second) for n in range(20))), start + second)
            if second >= 5:
                print(second, flush=True)
        """
    )
    for attempt in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", writer, str(path), str(attempt)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        for _ in range(3 + 7 * attempt):
            reported = int(process.stdout.readline())
        process.kill()
        process.communicate()
        counts = HistoryReader(path).counts(T0 + 1000 * attempt)
        assert len([t for t in counts["t"] if t >= T0 + 1000 * attempt]) > reported
    assert HistoryReader(path).timeline(T0)["total"] == 20


def test_readers_in_other_threads_while_writing(history: History) -> None:
    history.record_status(run_status(peer(1)), T0)
    seen: list[int] = []
    failures: list[Exception] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                seen.append(len(history.counts(T0)["t"]))
        except Exception as error:
            failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for second in range(1, 200):
        history.record_status(run_status(peer(1, "averaging" if second % 2 else "training")), T0 + second)
    done.set()
    for reader in readers:
        reader.join()
    assert not failures
    assert seen
    assert len(history.counts(T0)["t"]) == 200


def test_steps_checkpoints_and_events_are_kept(history: History) -> None:
    history.record_status(run_status(peer(1)), T0)
    history.record_step(1, T0 + 0.1, 6.5, 64, 2, received_fraction=1.0, seconds=0.5, peers_alive=2)
    history.record_step(
        2,
        T0 + 0.2,
        6.1,
        60,
        1,
        received_fraction=0.5,
        seconds=2.5,
        peers_alive=2,
        reason="otter-2 fell silent",
    )
    history.record_checkpoint(2, "checkpoints/step-00000002", 6.0, "sha256:ab", T0 + 0.3)
    history.record_event("evicted", "otter-9 was evicted", T0 + 0.4, data={"name": "otter-9"})
    steps = history.steps(T0, points=600)
    assert sum(steps["samples"]) == 124
    assert steps["partial_rounds"] == [1]
    assert history.round_problems(T0)[0]["reason"] == "otter-2 fell silent"
    assert history.checkpoints()[0]["heldout_loss"] == 6.0
    assert kinds(history) == ["joined", "checkpoint", "evicted"]
    assert history.events(about="run")[0]["data"] == {"name": "otter-9"}


def test_contributions_count_a_restarted_peer_on_top(history: History) -> None:
    for second, samples in enumerate([0, 100, 250, 30, 50]):
        history.record_status(run_status(peer(1, samples=samples)), T0 + second)
    history.record_status(run_status(peer(1, samples=60), peer(2, samples=7)), T0 + 86400)
    assert [row["samples"] for row in history.contributors()[1]] == [310, 7]
    assert [row["samples"] for row in history.contributors(since=T0 + 86400)[1]] == [10, 7]


def test_contributions_beyond_64_bits_can_be_read(path: Path, history: History) -> None:
    greatest = [peer(number, samples=2**63 - 1) for number in (1, 2)]
    history.record_status(run_status(*greatest), T0)
    history.record_status(
        run_status(*(one.model_copy(update={"samples_contributed": 9}) for one in greatest)), T0 + 1
    )
    samples, peers = history.contributors()
    assert samples >= 2**62
    assert len(peers) == 2
    assert len(list(csv_lines(path, "peers", 0.0, None))) == 3
    assert len(status_at(path, T0 + 0.5, run_status()).peers) == 2


def test_numbers_that_are_not_finite_are_not_kept(history: History) -> None:
    history.record_status(run_status(peer(1, samples_per_second=math.inf)), T0)
    history.record_status(run_status(peer(1)), T0 + 1)
    history.record_step(1, T0, math.inf, 64, 1, received_fraction=math.nan, seconds=math.inf)
    history.record_step(2, T0 + 1, 5.0, 64, 1, received_fraction=1.0, seconds=2.0)
    history.record_checkpoint(2, "checkpoints/step-00000002", math.inf, "sha256:ab", T0 + 1)
    assert history.counts(T0)["samples_per_second"] == [0.0, 10.0]
    hour = history.steps(T0, T0 + 3600 * 1000)
    assert (hour["loss"], hour["received_fraction"], hour["seconds"]) == ([5.0], [1.0], [2.0])
    assert history.checkpoints()[0]["heldout_loss"] is None


def test_a_status_kept_with_a_rate_that_was_not_finite_is_read(path: Path, history: History) -> None:
    history.record_status(run_status(peer(1, samples_per_second=math.inf), samples_per_second=math.inf), T0)
    history.close()
    status = HistoryReader(path).last_status()
    assert status is not None
    assert (status.samples_per_second, status.peers[0].samples_per_second) == (0.0, 0.0)


def test_a_peer_that_no_status_shows_any_more_is_known_by_its_row(path: Path, history: History) -> None:
    for second, peers in enumerate([[peer(1, samples=5)], [], [peer(1, samples=7)], []]):
        history.record_status(run_status(*peers), T0 + second)
    history.close()
    again = History(path)
    again.record_event("evicted", "otter-1 was evicted", T0 + 9, peer_id=peer(1).peer_id)
    again.record_status(run_status(peer(1, samples=9)), T0 + 10)
    assert again.timeline(T0)["total"] == 1
    assert {event["peer_id"] for event in again.events(about="peers")} == {peer(1).peer_id}
    assert again.events(about="run")[-1]["peer_id"] == peer(1).peer_id
    assert again.contributors()[0] == 9
    assert again.number_of_contributors() == 1
    again.close()


def test_last_status_is_kept_for_a_replay(path: Path, history: History) -> None:
    for second in range(15):
        history.record_status(run_status(peer(1), global_step=second), T0 + second)
    history.close()
    status = HistoryReader(path).last_status()
    assert status is not None
    assert status.global_step == 14


def test_damaged_file_is_named_in_one_line(path: Path) -> None:
    path.write_bytes(b"not a database, " * 300)
    with pytest.raises(HistoryError) as caught:
        History(path)
    assert str(path) in str(caught.value)
    assert "move the file away" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes().startswith(b"not a database")


def test_missing_directory_and_missing_file_are_explained(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="run directory exists"):
        History(tmp_path / "nowhere" / "history.sqlite")
    with pytest.raises(HistoryError, match="no history at"):
        HistoryReader(tmp_path / "history.sqlite")


def test_failed_write_is_not_half_remembered(history: History) -> None:
    history.record_status(run_status(peer(1)), T0)
    broken = peer(2).model_copy(update={"samples_contributed": 2**70})  # SQLite holds 64 bits
    with pytest.raises(OverflowError):
        history.record_status(run_status(peer(1), broken), T0 + 1)
    history.record_status(run_status(peer(1), peer(2)), T0 + 2)
    assert history.timeline(T0)["total"] == 2
    assert kinds(history) == ["joined", "joined"]
