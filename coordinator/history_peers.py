"""The part of the history that is per peer: who they are, their stays in each state, their samples per day.

Lives inside the writer's transactions. It remembers what is open in memory, so that a second in which
nothing changed writes nothing about any peer. Peers that no status shows any more are in the database only.
"""

import sqlite3
from dataclasses import dataclass

from coordinator.downsampling import DAY, Interval, coalesce
from coordinator.status import PEER_STATES, PeerStatus, RunStatus

STATE_NUMBER = {state: number for number, state in enumerate(PEER_STATES)}


@dataclass
class _Known:
    """What is already in the database about a peer; `started` is None while it is away."""

    number: int
    description: tuple
    samples: int
    state: int = -1
    started: float | None = None


def _description(peer: PeerStatus) -> tuple:
    return (peer.name, peer.device, peer.hardware, peer.version, peer.ranks, int(peer.client_mode))


def close_open_stays(connection: sqlite3.Connection, heard_at: float) -> dict[str, str]:
    """End what a stopped coordinator left open at the last moment it recorded; names of those peers by id."""
    cut_off = connection.execute(
        "SELECT peer_id, name FROM peers JOIN intervals USING (peer_no) WHERE ended IS NULL"
    ).fetchall()
    connection.execute(
        "UPDATE peers SET last_seen = ? WHERE peer_no IN (SELECT peer_no FROM intervals WHERE ended IS NULL)",
        (heard_at,),
    )
    connection.execute("UPDATE intervals SET ended = max(started, ?) WHERE ended IS NULL", (heard_at,))
    return dict(cut_off)


class PeerBook:
    """Writes the peers of one status after another; see the module."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self._known: dict[str, _Known] = {}
        open_stays = connection.execute(
            "SELECT peer_id, state, started FROM intervals JOIN peers USING (peer_no) WHERE ended IS NULL"
        )
        for peer_id, state, started in open_stays.fetchall():
            if (known := self._read(peer_id)) is not None:
                known.state, known.started = state, started
                self._known[peer_id] = known

    def number_of(self, peer_id: str) -> int | None:
        """The peer's row number, None for one that no status has shown yet."""
        known = self._known.get(peer_id) or self._read(peer_id)
        return known.number if known else None

    def observe(self, status: RunStatus, now: float) -> None:
        """Record what changed."""
        present = set()
        for peer in status.peers:
            present.add(peer.peer_id)
            known = self._introduce(peer, now)
            self._describe(known, peer)
            self._move(known, STATE_NUMBER[peer.state], now)
            self._credit(known, peer.samples_contributed, now)
        for peer_id in self._known.keys() - present:
            gone = self._known.pop(peer_id)
            if gone.started is not None:
                self._end_stay(gone, now)

    def end_all(self, heard_at: float) -> None:
        """End every stay at `heard_at`, the last moment before a silence."""
        for known in self._known.values():
            if known.started is not None:
                self._end_stay(known, heard_at)

    def compact(self, before: float, resolution: float) -> None:
        """Coalesce the stays that ended before `before` and have not been coalesced yet."""
        row = self._db.execute("SELECT value FROM meta WHERE key = 'compacted'").fetchone()
        # Stays that touch the previous run of this function are taken in again, to merge across its edge.
        since = row[0] - 2 * resolution if row else float("-inf")
        stays: dict[int, list[Interval]] = {}
        for number, *interval in self._db.execute(
            "SELECT peer_no, started, ended, state FROM intervals "
            "WHERE ended > ? AND ended <= ? ORDER BY peer_no, started",
            (since, before),
        ):
            stays.setdefault(number, []).append(Interval(*interval))
        for number, exact in stays.items():
            merged = coalesce(exact, resolution)
            if len(merged) < len(exact):
                self._replace(number, exact, merged)
        self._db.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (before,))

    def _replace(self, number: int, old: list[Interval], new: list[Interval]) -> None:
        self._db.executemany(
            "DELETE FROM intervals WHERE peer_no = ? AND started = ?", [(number, i.started) for i in old]
        )
        self._db.executemany(
            "INSERT INTO intervals VALUES (?, ?, ?, ?)", [(number, i.started, i.ended, i.state) for i in new]
        )

    def _introduce(self, peer: PeerStatus, now: float) -> _Known:
        known = self._known.get(peer.peer_id)
        if known is None:
            known = self._read(peer.peer_id) or self._insert(peer, now)
            # A crash may have taken the newest samples from the totals, not from here: they were credited already.
            known.samples = min(known.samples, peer.samples_contributed)
            self._known[peer.peer_id] = known
        return known

    def _read(self, peer_id: str) -> _Known | None:
        row = self._db.execute(
            "SELECT peer_no, samples_contributed, name, device, hardware, version, ranks, client_mode "
            "FROM peers WHERE peer_id = ?",
            (peer_id,),
        ).fetchone()
        return _Known(row[0], tuple(row[2:]), row[1]) if row else None

    def _insert(self, peer: PeerStatus, now: float) -> _Known:
        description = _description(peer)
        cursor = self._db.execute(
            "INSERT INTO peers (peer_id, name, device, hardware, version, ranks, client_mode, "
            "first_seen, last_seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (peer.peer_id, *description, now, now),
        )
        return _Known(int(cursor.lastrowid or 0), description, 0)

    def _describe(self, known: _Known, peer: PeerStatus) -> None:
        description = _description(peer)
        if description != known.description:
            self._db.execute(
                "UPDATE peers SET name = ?, device = ?, hardware = ?, version = ?, ranks = ?, "
                "client_mode = ? WHERE peer_no = ?",
                (*description, known.number),
            )
            known.description = description

    def _move(self, known: _Known, state: int, now: float) -> None:
        if known.started is not None and known.state == state:
            return
        if known.started is not None:
            self._end_stay(known, now)
        self._db.execute(
            "INSERT OR REPLACE INTO intervals VALUES (?, ?, NULL, ?)", (known.number, now, state)
        )
        known.state, known.started = state, now

    def _end_stay(self, known: _Known, now: float) -> None:
        self._db.execute(
            "UPDATE intervals SET ended = max(started, ?) WHERE peer_no = ? AND started = ?",
            (now, known.number, known.started),
        )
        self._db.execute("UPDATE peers SET last_seen = ? WHERE peer_no = ?", (now, known.number))
        known.started = None

    def _credit(self, known: _Known, samples: int, now: float) -> None:
        if samples == known.samples:
            return
        # A peer that came back with a fresh counter starts below what it had.
        gained = samples - known.samples if samples > known.samples else samples
        self._db.execute(
            "INSERT INTO contributions VALUES (?, ?, ?) "
            "ON CONFLICT DO UPDATE SET samples = samples + excluded.samples",
            (int(now // DAY), known.number, gained),
        )
        self._db.execute(
            "UPDATE peers SET samples_contributed = ?, last_seen = ? WHERE peer_no = ?",
            (samples, now, known.number),
        )
        known.samples = samples
