"""The run's memory: writes what the tracker sees into `history.sqlite`, from the first second on.

One writer thread calls `record_*`; each call is one transaction, so a coordinator killed at any moment
leaves whole rows. States of peers are kept as intervals, counts in three tiers that are summed up as they
are written; nothing has to be computed when the page opens. Reading is `HistoryReader`'s. Fails with
`HistoryError`.
"""

import json
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator.downsampling import SILENCE, TIERS, Retention
from coordinator.events import Absence, Event, events_between, restarted
from coordinator.history_peers import PeerBook, close_open_stays
from coordinator.history_reader import HistoryReader
from coordinator.history_schema import HistoryError, explained, open_writer
from coordinator.status import AWAY_STATES, PEER_STATES, RunStatus, count_by_state

__all__ = ["History", "HistoryError"]

KEEP_STATUS_EVERY = 10.0
TIDY_EVERY = 300.0
SMALL_CORRECTION = 60.0
COUNT_COLUMNS = (
    *PEER_STATES,
    *("client_mode", "gpus", "samples_per_second", "online_min", "online_max"),
    *("samples_total", "samples_accumulated", "global_step"),
)
SUMMED = (*PEER_STATES, "client_mode", "gpus", "samples_per_second")
UPSERT_COUNTS = (
    f"INSERT INTO counts (tier, t, n, {', '.join(COUNT_COLUMNS)}) "
    f"VALUES (?, ?, 1, {', '.join('?' * len(COUNT_COLUMNS))}) ON CONFLICT (tier, t) DO UPDATE SET n = n + 1, "
    + ", ".join(f"{column} = {column} + excluded.{column}" for column in SUMMED)
    + ", online_min = min(online_min, excluded.online_min)"
    + ", online_max = max(online_max, excluded.online_max), "
    + ", ".join(f"{c} = excluded.{c}" for c in ("samples_total", "samples_accumulated", "global_step"))
)
# Computed anew from the hour's steps: a step that is recorded again must not count twice.
STEP_HOUR = (
    "INSERT OR REPLACE INTO step_hours SELECT :hour, max(t), max(global_step), avg(loss), sum(samples), "
    "avg(group_size), avg(peers_alive), avg(received_fraction), avg(seconds), sum(bytes), sum(failed_rounds), "
    "COALESCE(sum(received_fraction < 0.999), 0), count(*) FROM steps WHERE t >= :hour AND t < :hour + 3600"
)


class History(HistoryReader):
    """Writer and reader of one run's history.

    >>> history = History(Path("runs/demo/history.sqlite"))          # doctest: +SKIP
    >>> history.record_status(status, now=time.time())               # doctest: +SKIP
    >>> history.counts(start=time.time() - 3600)["training"][-1]     # doctest: +SKIP
    """

    def __init__(self, path: Path, retention: Retention | None = None) -> None:
        """Open or create the database at `path`. Raises `HistoryError`."""
        self._retention = retention or Retention()
        self._lock = threading.Lock()
        self._closed = False
        self._writer = open_writer(path)
        super().__init__(path, self._retention)
        with self._transaction():
            last = self._writer.execute("SELECT value FROM meta WHERE key = 'heard_at'").fetchone()
            self._heard_at: float | None = last[0] if last else None
            cut_off = close_open_stays(self._writer, self._heard_at) if self._heard_at is not None else {}
            self._book = PeerBook(self._writer)
        self._absence = Absence(self._heard_at, cut_off)
        self._previous: RunStatus | None = None
        self._kept_status_at = self._tidied_at = float("-inf")

    def record_status(self, status: RunStatus, now: float) -> None:
        """Append the tracker's view at `now` (Unix seconds) and the events it implies; about every second."""
        if self._heard_at is not None and now < self._heard_at < now + SMALL_CORRECTION:
            now = self._heard_at  # the machine's clock was set back a little: keep intervals in order
        silence = now - self._heard_at if self._heard_at is not None else 0.0
        with self._transaction():
            if silence > SILENCE and self._previous is not None:
                # The machine slept, or the tracker hung: what was open then is not known to have lasted.
                self._book.end_all(self._heard_at or now)
                self._insert_event(restarted(silence), now)
            self._book.observe(status, now)
            self._count(status, int(now))
            for event in self._implied_events(status, now):
                self._insert_event(event, now)
            self._writer.execute("INSERT OR IGNORE INTO meta VALUES ('first_at', ?)", (now,))
            self._writer.execute("INSERT OR REPLACE INTO meta VALUES ('heard_at', ?)", (now,))
            if now - self._kept_status_at >= KEEP_STATUS_EVERY or self._state_of_run_changed(status):
                self._keep_status(status, now)
            if now - self._tidied_at >= TIDY_EVERY:
                self._tidy(now)
                self._tidied_at = now
        self._previous, self._heard_at = status, now

    def record_step(
        self,
        global_step: int,
        time: float,
        loss: float | None,
        samples: int,
        group_size: int,
        received_fraction: float | None = None,
        seconds: float | None = None,
        peers_alive: int | None = None,
        bytes_averaged: int | None = None,
        failed_rounds: int = 0,
        reason: str | None = None,
    ) -> None:
        """Append one global step: `group_size` peers averaged of `peers_alive`, in `seconds`.

        `received_fraction` (0 to 1) is what was really received, `failed_rounds` the attempts before this
        one, `reason` why it was partial or failed. Recording a step again replaces it.
        """
        fraction, seconds = _finite(received_fraction), _finite(seconds)
        row = (global_step, time, _finite(loss), samples, group_size, peers_alive, fraction, seconds)
        with self._transaction():
            self._writer.execute(
                "INSERT OR REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, bytes_averaged, failed_rounds, reason),
            )
            self._writer.execute(STEP_HOUR, {"hour": int(time // 3600) * 3600})

    def record_checkpoint(
        self, step: int, path: str, heldout_loss: float | None, digest: str, now: float
    ) -> None:
        """Append a checkpoint and its event."""
        heldout_loss = _finite(heldout_loss)
        loss = "" if heldout_loss is None else f", held-out loss {heldout_loss:.3f}"
        data = {"step": step, "path": path, "heldout_loss": heldout_loss, "digest": digest}
        with self._transaction():
            self._writer.execute(
                "INSERT OR REPLACE INTO checkpoints VALUES (?, ?, ?, ?, ?)",
                (step, now, str(path), heldout_loss, digest),
            )
            self._insert_event(Event("checkpoint", f"checkpoint of step {step} saved{loss}", data=data), now)

    def record_event(
        self, kind: str, sentence: str, now: float, peer_id: str | None = None, data: dict | None = None
    ) -> None:
        """Append an event that the statuses do not show by themselves (refusals, evictions, warnings)."""
        with self._transaction():
            self._insert_event(Event(kind, sentence, peer_id, data or {}), now)

    def close(self) -> None:
        """Keep the last status and close the file; what was recorded is safe without it too."""
        with self._lock:
            closed = self._closed
            self._closed = True
        if closed:
            return
        with explained(self.path):
            if self._previous is not None and self._heard_at is not None:
                self._keep_status(self._previous, self._heard_at)
            self._writer.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock, explained(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                self._book = PeerBook(self._writer)  # what it remembered was not written
                raise

    def _count(self, status: RunStatus, second: int) -> None:
        counts = count_by_state(status)
        alive = [peer for peer in status.peers if peer.state not in AWAY_STATES]
        clients = sum(peer.client_mode for peer in alive)
        gpus = sum(peer.ranks for peer in alive if peer.device.startswith("cuda"))
        speed = _finite(status.samples_per_second) or 0.0
        row = (*(counts[state] for state in PEER_STATES), clients, gpus, speed)
        newest = (status.samples_total, status.samples_accumulated, status.global_step)
        for tier in TIERS:
            self._writer.execute(
                UPSERT_COUNTS, (tier, second - second % tier, *row, len(alive), len(alive), *newest)
            )

    def _implied_events(self, status: RunStatus, now: float) -> Iterator[Event]:
        # Before the first status there was nothing: everything in it is news.
        before = self._previous or status.model_copy(update={"peers": [], "split": False})
        yield from self._absence.correct(events_between(before, status), now)

    def _insert_event(self, event: Event, now: float) -> None:
        peer_no = self._book.number_of(event.peer_id) if event.peer_id else None
        self._writer.execute(
            "INSERT INTO events (t, kind, peer_no, sentence, data) VALUES (?, ?, ?, ?, ?)",
            (now, event.kind, peer_no, event.sentence, json.dumps(event.data) if event.data else None),
        )
        self._writer.execute(
            "INSERT INTO event_hours VALUES (?, ?, 1) ON CONFLICT (t, kind) DO UPDATE SET n = n + 1",
            (int(now // 3600) * 3600, event.kind),
        )

    def _state_of_run_changed(self, status: RunStatus) -> bool:
        return self._previous is None or self._previous.state != status.state

    def _keep_status(self, status: RunStatus, now: float) -> None:
        self._writer.execute(
            "INSERT OR REPLACE INTO meta VALUES ('last_status', ?)", (status.model_dump_json(),)
        )
        self._kept_status_at = now

    def _tidy(self, now: float) -> None:
        for tier in (1, 60):
            oldest = now - self._retention.reach(tier)
            self._writer.execute("DELETE FROM counts WHERE tier = ? AND t < ?", (tier, oldest))
        self._writer.execute("DELETE FROM events WHERE t < ?", (now - self._retention.events,))
        self._book.compact(now - self._retention.exact_intervals, self._retention.interval_resolution)


def _finite(number: float | None) -> float | None:
    """The number, or None for one that every sum and mean over its hour would become, and stay for ever."""
    return number if number is not None and math.isfinite(number) else None
