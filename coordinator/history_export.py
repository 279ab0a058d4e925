"""The history as CSV, streamed row by row: what spreadsheets and notebooks ask for.

Times are Unix seconds, as in the database. Words that come from peers cannot become formulas in a
spreadsheet.
"""

import csv
import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

from coordinator.history_schema import explained, open_reader
from coordinator.status import PEER_STATES

Table = Literal["counts", "steps", "checkpoints", "events", "peers", "stays", "contributions"]
Every = Literal["second", "minute", "hour"]

TIER_OF: dict[Every, int] = {"second": 1, "minute": 60, "hour": 3600}
STATE_NAMES = " ".join(f"WHEN {number} THEN '{state}'" for number, state in enumerate(PEER_STATES))
MEANS = ", ".join(f"round({c} * 1.0 / n, 3) AS {c}" for c in (*PEER_STATES, "client_mode", "gpus"))
QUERIES: dict[Table, str] = {
    "counts": f"SELECT t, {MEANS}, round(samples_per_second / n, 3) AS samples_per_second, online_min, "
    "online_max, samples_total, samples_accumulated, global_step FROM counts "
    "WHERE tier = :tier AND t >= :start AND t < :end ORDER BY t",
    "steps": "SELECT * FROM steps WHERE t >= :start AND t < :end ORDER BY t",
    "checkpoints": "SELECT * FROM checkpoints WHERE t >= :start AND t < :end ORDER BY step",
    "events": "SELECT id, t, kind, peer_id, sentence FROM events LEFT JOIN peers USING (peer_no) "
    "WHERE t >= :start AND t < :end ORDER BY id",
    "peers": "SELECT peer_id, name, device, hardware, version, ranks, client_mode, first_seen, last_seen, "
    "(SELECT CAST(total(samples) AS INTEGER) FROM contributions c WHERE c.peer_no = peers.peer_no) AS samples "
    "FROM peers WHERE first_seen < :end ORDER BY first_seen",
    "stays": f"SELECT peer_id, name, started, ended, CASE state {STATE_NAMES} END AS state FROM intervals "
    "JOIN peers USING (peer_no) WHERE started < :end AND (ended > :start OR ended IS NULL) "
    "ORDER BY peer_no, started",
    "contributions": "SELECT date(day * 86400, 'unixepoch') AS day, peer_id, name, samples FROM contributions "
    "JOIN peers USING (peer_no) WHERE day * 86400 + 86400 > :start AND day * 86400 < :end "
    "ORDER BY day, samples DESC",
}


def csv_lines(
    path: Path, table: Table, start: float, end: float | None, every: Every = "minute"
) -> Iterator[str]:
    """Lines of `table` with a header; `every` is the resolution of `counts`. Raises `HistoryError`."""
    scope = {"start": start, "end": 1e12 if end is None else end, "tier": TIER_OF[every]}
    with closing(open_reader(path)) as db, explained(path):
        cursor = db.execute(QUERIES[table], scope)
        yield _line([column[0] for column in cursor.description])
        for row in cursor:
            yield _line([_harmless(cell) for cell in row])


def _line(cells: list) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return text.getvalue()


def _harmless(cell: object) -> object:
    if isinstance(cell, str) and cell[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{cell}"
    return cell
