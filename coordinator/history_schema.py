"""Tables of `history.sqlite` and how the file is opened.

WAL lets one writer and many readers, in threads or other processes, work at once; a writer killed at any
moment leaves the last whole transaction. Whatever is wrong with the file becomes `HistoryError`, one line
with the file's name and what to do.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator.status import PEER_STATES
from swarm.errors import OperationFailed

SCHEMA_VERSION = 1

STATE_COLUMNS = ", ".join(f"{state} INTEGER NOT NULL DEFAULT 0" for state in PEER_STATES)

# Counts have one row per `tier` seconds (1, 60, 3600). State columns, client_mode, gpus and
# samples_per_second are sums over the n statuses of the row, so that rows add up to coarser ones; the rest
# is the newest value.
# step_hours and event_hours are the same numbers by the hour, so that a run of months opens at once.
# An interval is a peer's stay in one state, `ended` is NULL while it lasts.
SCHEMA = (
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID",
    f"""CREATE TABLE counts (
        tier INTEGER NOT NULL, t INTEGER NOT NULL, n INTEGER NOT NULL,
        {STATE_COLUMNS},
        client_mode INTEGER NOT NULL, gpus INTEGER NOT NULL, samples_per_second REAL NOT NULL,
        online_min INTEGER NOT NULL, online_max INTEGER NOT NULL,
        samples_total INTEGER NOT NULL, samples_accumulated INTEGER NOT NULL, global_step INTEGER NOT NULL,
        PRIMARY KEY (tier, t)) WITHOUT ROWID""",
    """CREATE TABLE peers (
        peer_no INTEGER PRIMARY KEY, peer_id TEXT NOT NULL UNIQUE, name TEXT NOT NULL,
        device TEXT NOT NULL, hardware TEXT NOT NULL, version TEXT NOT NULL,
        ranks INTEGER NOT NULL, client_mode INTEGER NOT NULL,
        first_seen REAL NOT NULL, last_seen REAL NOT NULL,
        samples_contributed INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE intervals (
        peer_no INTEGER NOT NULL, started REAL NOT NULL, ended REAL, state INTEGER NOT NULL,
        PRIMARY KEY (peer_no, started)) WITHOUT ROWID""",
    "CREATE INDEX open_intervals ON intervals (peer_no) WHERE ended IS NULL",
    "CREATE INDEX intervals_by_end ON intervals (ended)",
    """CREATE TABLE contributions (
        day INTEGER NOT NULL, peer_no INTEGER NOT NULL, samples INTEGER NOT NULL,
        PRIMARY KEY (day, peer_no)) WITHOUT ROWID""",
    """CREATE TABLE steps (
        global_step INTEGER PRIMARY KEY, t REAL NOT NULL, loss REAL, samples INTEGER NOT NULL,
        group_size INTEGER NOT NULL, peers_alive INTEGER, received_fraction REAL, seconds REAL,
        bytes INTEGER, failed_rounds INTEGER NOT NULL, reason TEXT)""",
    "CREATE INDEX steps_by_time ON steps (t)",
    """CREATE TABLE step_hours (
        t INTEGER PRIMARY KEY, newest REAL NOT NULL, global_step INTEGER NOT NULL, loss REAL,
        samples INTEGER NOT NULL, group_size REAL NOT NULL, peers_alive REAL, received_fraction REAL,
        seconds REAL, bytes INTEGER, failed_rounds INTEGER NOT NULL, partial_rounds INTEGER NOT NULL,
        steps INTEGER NOT NULL)""",
    """CREATE TABLE checkpoints (
        step INTEGER PRIMARY KEY, t REAL NOT NULL, path TEXT NOT NULL, heldout_loss REAL,
        digest TEXT NOT NULL)""",
    """CREATE TABLE events (
        id INTEGER PRIMARY KEY AUTOINCREMENT, t REAL NOT NULL, kind TEXT NOT NULL,
        peer_no INTEGER, sentence TEXT NOT NULL, data TEXT)""",
    """CREATE TABLE event_hours (
        t INTEGER NOT NULL, kind TEXT NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (t, kind)) WITHOUT ROWID""",
    "CREATE INDEX events_by_time ON events (t)",
    "CREATE INDEX events_by_kind ON events (kind, t)",
)


class HistoryError(OperationFailed):
    """The history database cannot be used; the message is one line for the user."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn sqlite's errors into `HistoryError` with the file's name and the way out."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise HistoryError(f"history {path} cannot be used ({error}): {_advice(str(error))}") from error
    except sqlite3.DatabaseError as error:
        raise HistoryError(
            f"history {path} is damaged or not a history ({error}): "
            "move the file away and start again, a new one is begun (the run itself is not affected)"
        ) from error


def _advice(error: str) -> str:
    if "full" in error:
        return "free some space on its disk"
    if "locked" in error:
        return "another coordinator writes to this run directory, stop it first"
    if "unable to open" in error or "readonly" in error:
        return "check that the run directory exists and that this user may write there"
    return "check the file's rights and its disk"


def open_writer(path: Path) -> sqlite3.Connection:
    """Open or create the database for the one writer. Raises `HistoryError`."""
    with explained(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA journal_size_limit=16777216")
            _create_or_check(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def open_reader(path: Path) -> sqlite3.Connection:
    """Open for reading only; a finished run on read-only media works too. Raises `HistoryError`."""
    if not path.is_file():
        raise HistoryError(
            f"there is no history at {path}: give the directory of a run that has been started"
        )
    with explained(path):
        try:
            return _checked_reader(path, "mode=ro")
        except sqlite3.OperationalError:
            # WAL needs to create its -shm file; where that is impossible nobody writes either.
            return _checked_reader(path, "mode=ro&immutable=1")


def _checked_reader(path: Path, options: str) -> sqlite3.Connection:
    address = f"{path.resolve().as_uri()}?{options}"
    connection = sqlite3.connect(address, uri=True, check_same_thread=False, timeout=5.0)
    try:
        _check_version(connection, path)
    except BaseException:
        connection.close()
        raise
    return connection


def _create_or_check(connection: sqlite3.Connection, path: Path) -> None:
    # IMMEDIATE: two processes that start at once must not both create the tables.
    connection.execute("BEGIN IMMEDIATE")
    try:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and tables == 0:
            for statement in SCHEMA:
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        else:
            _check_version(connection, path)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != SCHEMA_VERSION:
        raise HistoryError(
            f"history {path} has schema {version}, this program reads {SCHEMA_VERSION}: "
            "use the version of Artel that wrote it, or move the file away to begin a new one"
        )
