"""The status of a run as it was at any moment of its history: what a replay shows.

Put together from counts, stays, steps and checkpoints. What the history does not keep per second (a
peer's speed, its samples within a day) is left at zero or at the day's end.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from coordinator.downsampling import DAY, SILENCE, TIERS
from coordinator.history_schema import explained, open_reader
from coordinator.status import AWAY_STATES, PEER_STATES, CheckpointStatus, PeerStatus, RunStatus

COUNT_AT = (
    "SELECT t, samples_per_second / n AS samples_per_second, samples_total, samples_accumulated, global_step "
    "FROM counts WHERE tier = ? AND t <= ? ORDER BY t DESC LIMIT 1"
)
PEERS_AT = (
    "SELECT peer_id, name, device, hardware, version, ranks, client_mode, state, "
    "(SELECT CAST(total(samples) AS INTEGER) FROM contributions c WHERE c.peer_no = peers.peer_no AND c.day <= :day) "
    "AS samples FROM intervals JOIN peers USING (peer_no) "
    "WHERE started <= :t AND (ended > :t OR ended IS NULL) AND first_seen <= :t ORDER BY first_seen"
)


def status_at(path: Path, t: float, last: RunStatus) -> RunStatus:
    """The run at Unix second `t`; `last` gives what never changes (name, target, join line).

    Raises `HistoryError`.
    """
    with closing(open_reader(path)) as db, explained(path):
        db.row_factory = sqlite3.Row
        count = _count_at(db, t)
        peers = _peers_at(db, t, count["global_step"] if count else 0)
        step = db.execute("SELECT loss FROM steps WHERE t <= ? ORDER BY t DESC LIMIT 1", (t,)).fetchone()
        saved = db.execute("SELECT * FROM checkpoints WHERE t <= ? ORDER BY step", (t,)).fetchall()
    checkpoints = [_checkpoint(row) for row in saved]
    working = any(peer.state in ("training", "averaging") for peer in peers)
    silent = count is None
    return last.model_copy(
        update={
            "state": "training" if working else "waiting",
            "reason": None if working or not silent else "nothing was recorded at this moment",
            "generated_at": t,
            "global_step": count["global_step"] if count else 0,
            "peers_online": sum(peer.state not in AWAY_STATES for peer in peers),
            "samples_per_second": count["samples_per_second"] if count else 0.0,
            "samples_total": count["samples_total"] if count else 0,
            "samples_accumulated": count["samples_accumulated"] if count else 0,
            "goodput": None,
            "train_loss": step["loss"] if step else None,
            "heldout_loss": checkpoints[-1].heldout_loss if checkpoints else None,
            "peers": peers,
            "checkpoints": checkpoints[-10:],
            "split": False,
        }
    )


def _count_at(db: sqlite3.Connection, t: float) -> sqlite3.Row | None:
    for tier in TIERS:
        row = db.execute(COUNT_AT, (tier, t)).fetchone()
        if row is not None and t - row["t"] <= max(tier, SILENCE):
            return row
    return None


def _peers_at(db: sqlite3.Connection, t: float, global_step: int) -> list[PeerStatus]:
    rows = db.execute(PEERS_AT, {"t": t, "day": int(t // DAY)}).fetchall()
    total = sum(row["samples"] for row in rows) or 1
    return [
        PeerStatus(
            peer_id=row["peer_id"],
            name=row["name"],
            state=PEER_STATES[row["state"]],
            device=row["device"],
            ranks=row["ranks"],
            samples_contributed=row["samples"],
            global_step=global_step,
            client_mode=bool(row["client_mode"]),
            version=row["version"],
            hardware=row["hardware"],
            share=row["samples"] / total,
        )
        for row in rows
    ]


def _checkpoint(row: sqlite3.Row) -> CheckpointStatus:
    return CheckpointStatus(
        step=row["step"],
        path=row["path"],
        heldout_loss=row["heldout_loss"],
        digest=row["digest"],
        saved_at=row["t"],
    )
