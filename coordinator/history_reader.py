"""Questions the page, the API and the replay ask of `history.sqlite`.

Each query opens its own read-only connection, so any thread or process may ask while the tracker writes.
Series come back as columns ({"t": [...], "training": [...]}), never more than about `points` long however
long the run; None stands where nothing was recorded. Times are Unix seconds. Fails with `HistoryError`.
"""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

from coordinator.downsampling import (
    DAY,
    Interval,
    Retention,
    choose_bucket,
    choose_tier,
    coalesce,
    with_gaps,
)
from coordinator.events import PEER_KINDS
from coordinator.history_queries import (
    COUNT_NAMES,
    COUNTS,
    MARK_HOURS,
    MARKS,
    STEP_HOURS,
    STEP_NAMES,
    STEPS,
)
from coordinator.history_schema import explained, open_reader
from coordinator.status import PEER_STATES, RunStatus

Columns = dict[str, list]

PEER_FIELDS = ("peer_id", "name", "device", "hardware", "version", "ranks", "client_mode", "first_seen")


class HistoryReader:
    """Read-only view of one run's history, of a live run or a finished one."""

    def __init__(self, path: Path, retention: Retention | None = None) -> None:
        """Check that `path` can be read. Raises `HistoryError`."""
        self.path = path
        self._retention = retention or Retention()
        with self._reading():
            pass

    def span(self) -> tuple[float, float] | None:
        """First and last moment recorded, None for an empty history."""
        with self._reading() as db:
            first, newest = _meta(db, "first_at"), _meta(db, "heard_at")
        return None if first is None else (first, newest)

    def counts(self, start: float, end: float | None = None, points: int = 600) -> Columns:
        """Peers by state (means over each bucket), rates and totals; the columns are COUNT_NAMES."""
        with self._reading() as db:
            end, newest = self._until(db, end)
            bucket = choose_bucket(end - start, points)
            tier, bucket = choose_tier(bucket, start, newest, self._retention)
            scope = {"tier": tier, "bucket": bucket, "start": int(start // bucket) * bucket, "end": end}
            rows = with_gaps(db.execute(COUNTS, scope), bucket, len(COUNT_NAMES))
        return {"bucket": bucket, **_columns(COUNT_NAMES, rows)}  # type: ignore[dict-item]

    def steps(self, start: float, end: float | None = None, points: int = 600) -> Columns:
        """Global steps: loss, group size, fraction received, duration, bytes; means or sums over buckets."""
        with self._reading() as db:
            end, _ = self._until(db, end)
            bucket = choose_bucket(end - start, points)
            query = STEPS if bucket < 3600 else STEP_HOURS
            rows = db.execute(query, {"start": start, "end": end, "bucket": bucket}).fetchall()
        return _columns(STEP_NAMES, rows)

    def averaging_totals(self) -> dict[str, Any]:
        """Sums over all global steps (steps, bytes, partial, failed) and the newest one's group and duration."""
        with self._reading() as db:
            (sums,) = _records(
                db,
                "SELECT count(*) AS steps, COALESCE(sum(bytes), 0) AS bytes, "
                "COALESCE(sum(received_fraction < 0.999), 0) AS partial, "
                "COALESCE(sum(failed_rounds), 0) AS failed FROM steps",
                (),
            )
            newest = _records(
                db,
                "SELECT group_size, seconds, received_fraction FROM steps ORDER BY global_step DESC LIMIT 1",
                (),
            )
        nothing = {"group_size": None, "seconds": None, "received_fraction": None}
        return {**sums, **(newest[0] if newest else nothing)}

    def round_problems(self, start: float, end: float | None = None, limit: int = 50) -> list[dict]:
        """Newest steps whose averaging was partial or failed first, with the reasons."""
        with self._reading() as db:
            end, _ = self._until(db, end)
            return _records(
                db,
                "SELECT global_step, t, group_size, peers_alive, received_fraction, failed_rounds, reason "
                "FROM steps WHERE t >= ? AND t < ? AND (failed_rounds > 0 OR received_fraction < 0.999 "
                "OR reason IS NOT NULL) ORDER BY t DESC LIMIT ?",
                (start, end, limit),
            )

    def checkpoints(self) -> list[dict]:
        """All checkpoints recorded, oldest first."""
        with self._reading() as db:
            return _records(
                db, "SELECT step, t, path, heldout_loss, digest FROM checkpoints ORDER BY step", ()
            )

    def events(
        self,
        start: float = 0.0,
        end: float | None = None,
        limit: int = 200,
        about: Literal["peers", "run"] | None = None,
        before_id: int | None = None,
    ) -> list[dict]:
        """Newest events first; `before_id` continues, `about` keeps those of peers or of the run."""
        marks = ", ".join("?" * len(PEER_KINDS))
        where = {None: "", "peers": f"AND kind IN ({marks}) ", "run": f"AND kind NOT IN ({marks}) "}[about]
        kinds = PEER_KINDS if about else ()
        with self._reading() as db:
            end, _ = self._until(db, end)
            rows = _records(
                db,
                "SELECT id, t, kind, peer_id, sentence, data FROM events LEFT JOIN peers USING (peer_no) "
                f"WHERE t >= ? AND t < ? AND id < ? {where}ORDER BY id DESC LIMIT ?",
                (start, end, before_id or 2**62, *kinds, limit),
            )
        for row in rows:
            row["data"] = json.loads(row["data"]) if row["data"] else {}
        return rows

    def event_marks(self, start: float, end: float | None = None, points: int = 300) -> list[dict]:
        """How many events of each kind fell into each bucket: marks for the charts."""
        with self._reading() as db:
            end, _ = self._until(db, end)
            bucket = choose_bucket(end - start, points)
            query = MARKS if bucket < 3600 else MARK_HOURS
            return _records(db, query, {"start": start, "end": end, "bucket": bucket})

    def timeline(
        self,
        start: float,
        end: float | None = None,
        offset: int = 0,
        limit: int = 60,
        points: int = 800,
        find: str = "",
    ) -> dict[str, Any]:
        """Rows of the timeline, oldest peer first; stays: flat [seconds after start, seconds, state, …]."""
        with self._reading() as db:
            end, _ = self._until(db, end)
            chosen, total = self._peers_between(db, start, end, offset, limit, find)
            resolution = (end - start) / points
            for peer in chosen:
                peer["stays"] = _stays(db, peer.pop("peer_no"), start, end, resolution)
        scope = {"states": PEER_STATES, "start": start, "end": end}
        return {**scope, "offset": offset, "total": total, "peers": chosen}

    def contributors(self, since: float | None = None, limit: int = 100) -> tuple[int, list[dict]]:
        """All samples, and the peers who gave most; over the run or the days (UTC) from `since` on."""
        day = int((since or 0.0) // DAY)
        # of total(), unlike of sum(), a number beyond 64 bits is no error: earlier versions believed every count
        total = "SELECT CAST(total(samples) AS INTEGER) FROM contributions WHERE day >= ?"
        with self._reading() as db:
            return db.execute(total, (day,)).fetchone()[0], _records(
                db,
                "SELECT peer_id, name, device, hardware, CAST(total(samples) AS INTEGER) AS samples FROM contributions "
                "JOIN peers USING (peer_no) WHERE day >= ? GROUP BY peer_no ORDER BY samples DESC LIMIT ?",
                (day, limit),
            )

    def number_of_contributors(self) -> int:
        """How many peers have ever contributed."""
        with self._reading() as db:
            return db.execute("SELECT count(DISTINCT peer_no) FROM contributions").fetchone()[0]

    def last_status(self) -> RunStatus | None:
        """The newest status kept, at most some seconds older than the last moment recorded."""
        with self._reading() as db:
            text = _meta(db, "last_status")
        return RunStatus.model_validate_json(text) if text else None

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with closing(open_reader(self.path)) as db, explained(self.path):
            yield db

    def _until(self, db: sqlite3.Connection, end: float | None) -> tuple[float, float]:
        newest = _meta(db, "heard_at") or 0.0
        return (newest + 1 if end is None else end), newest

    def _peers_between(
        self, db: sqlite3.Connection, start: float, end: float, offset: int, limit: int, find: str
    ) -> tuple[list[dict], int]:
        # An open stay has not touched last_seen yet.
        where = (
            "FROM peers WHERE first_seen < ? AND (last_seen > ? OR EXISTS (SELECT 1 FROM intervals "
            "WHERE intervals.peer_no = peers.peer_no AND ended IS NULL)) AND (name LIKE ? OR peer_id LIKE ?)"
        )
        scope = (end, start, f"%{find}%", f"%{find}%")
        (total,) = db.execute(f"SELECT count(*) {where}", scope).fetchone()
        columns = ", ".join(("peer_no", *PEER_FIELDS))
        rows = _records(
            db,
            f"SELECT {columns} {where} ORDER BY first_seen, peer_no LIMIT ? OFFSET ?",
            (*scope, limit, offset),
        )
        return rows, total


def _stays(db: sqlite3.Connection, number: int, start: float, end: float, resolution: float) -> list[float]:
    rows = db.execute(
        "SELECT started, ended, state FROM intervals WHERE peer_no = ? AND started < ? "
        "AND (ended > ? OR ended IS NULL) ORDER BY started",
        (number, end, start),
    )
    stays = (Interval(max(began, start), min(ended or end, end), state) for began, ended, state in rows)
    digits = None if resolution > 5 else 1
    flat: list[float] = []
    for stay in coalesce(stays, resolution):
        flat += (round(stay.started - start, digits), round(stay.ended - stay.started, digits), stay.state)
    return flat


def _meta(db: sqlite3.Connection, key: str) -> Any:
    row = db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return row[0] if row else None


def _columns(names: Sequence[str], rows: Sequence[Sequence]) -> Columns:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return {name: list(column) for name, column in zip(names, columns, strict=True)}


def _records(db: sqlite3.Connection, query: str, scope: Sequence | dict[str, float]) -> list[dict]:
    cursor = db.execute(query, scope)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]
