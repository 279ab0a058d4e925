"""The history as CSV, streamed row by row: what spreadsheets and notebooks ask for.

Rows are read in pages, and nothing of the database is held between two of them: while a read transaction is open the
writer cannot reset the WAL, so a client that stops reading would let that grow until the disk is full.

Times are Unix seconds, as in the database. Words that come from peers cannot become formulas in a
spreadsheet.
"""

import csv
import io
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coordinator.history_schema import explained, open_reader
from coordinator.status import PEER_STATES

Table = Literal["counts", "steps", "checkpoints", "events", "peers", "stays", "contributions"]
Every = Literal["second", "minute", "hour"]

PAGE_ROWS = 5000

TIER_OF: dict[Every, int] = {"second": 1, "minute": 60, "hour": 3600}
STATE_NAMES = " ".join(f"WHEN {number} THEN '{state}'" for number, state in enumerate(PEER_STATES))
MEANS = ", ".join(f"round({c} * 1.0 / n, 3) AS {c}" for c in (*PEER_STATES, "client_mode", "gpus"))


@dataclass(frozen=True)
class _Source:
    """Where the rows of a table come from.

    :param key: columns in whose order they come; no two rows are alike in them. Where the first is the time, it also
        says where to begin, so that an index on it is all that a page needs
    """

    columns: str
    rows: str
    key: tuple[str, ...]

    def page(self, after: tuple[float, ...]) -> str:
        """SQL of the rows that follow `after`; their keys are the last columns."""
        key, marks = ", ".join(self.key), ", ".join(f":after{place}" for place in range(len(after)))
        return f"SELECT {self.columns}, {key} FROM {self.rows} AND ({key}) > ({marks}) ORDER BY {key} LIMIT :page"


SOURCES: dict[Table, _Source] = {
    "counts": _Source(
        f"t, {MEANS}, round(samples_per_second / n, 3) AS samples_per_second, online_min, online_max, "
        "samples_total, samples_accumulated, global_step",
        "counts WHERE tier = :tier AND t < :end",
        ("t", "tier"),
    ),
    "steps": _Source("*", "steps WHERE t < :end", ("t", "global_step")),
    "checkpoints": _Source("*", "checkpoints WHERE t >= :start AND t < :end", ("step",)),
    "events": _Source(
        "id, t, kind, peer_id, sentence",
        "events LEFT JOIN peers USING (peer_no) WHERE t < :end",
        ("t", "id"),
    ),
    "peers": _Source(
        "peer_id, name, device, hardware, version, ranks, client_mode, first_seen, last_seen, samples",
        "peers LEFT JOIN (SELECT peer_no, CAST(total(samples) AS INTEGER) AS samples FROM contributions "
        "GROUP BY peer_no) USING (peer_no) WHERE first_seen < :end",
        ("peer_no",),
    ),
    "stays": _Source(
        f"peer_id, name, started, ended, CASE state {STATE_NAMES} END AS state",
        "intervals JOIN peers USING (peer_no) WHERE started < :end AND (ended > :start OR ended IS NULL)",
        ("peer_no", "started"),
    ),
    "contributions": _Source(
        "date(day * 86400, 'unixepoch') AS day, peer_id, name, samples",
        "contributions JOIN peers USING (peer_no) WHERE day * 86400 + 86400 > :start AND day * 86400 < :end",
        ("contributions.day", "peer_no"),
    ),
}


def csv_lines(
    path: Path, table: Table, start: float, end: float | None, every: Every = "minute"
) -> Iterator[str]:
    """Lines of `table` with a header; `every` is the resolution of `counts`. Raises `HistoryError`."""
    source = SOURCES[table]
    scope = {"start": start, "end": 1e12 if end is None else end, "tier": TIER_OF[every], "page": PAGE_ROWS}
    after = tuple(start if column == "t" else float("-inf") for column in source.key)
    width = -len(after)
    columns, rows = _read_page(path, source, scope, after)
    yield _line(columns[:width])
    while rows:
        for row in rows:
            yield _line([_harmless(cell) for cell in row[:width]])
        _, rows = _read_page(path, source, scope, rows[-1][width:])


def _read_page(
    path: Path, source: _Source, scope: dict[str, float], after: tuple[float, ...]
) -> tuple[list[str], list[tuple]]:
    """Names of the columns and the next rows, in a transaction that has ended when this returns."""
    place = {f"after{number}": value for number, value in enumerate(after)}
    with closing(open_reader(path)) as db, explained(path):
        cursor = db.execute(source.page(after), {**scope, **place})
        return [column[0] for column in cursor.description], cursor.fetchall()


def _line(cells: list) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def _harmless(cell: object) -> object:
    if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{cell}"
    return cell
