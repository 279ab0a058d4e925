"""A made-up history of months, written in bulk: what `History` would hold after days of calls, in seconds.

Only the newest minutes go through `History.record_status`; everything older is put into the tables as the
down-sampling leaves it. `python -m tests.coordinator.long_history PATH [DAYS] [PEERS]` writes one.
"""

import random
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from coordinator.downsampling import DAY, TIERS, Retention
from coordinator.history import COUNT_COLUMNS, STEP_HOUR, History
from coordinator.history_schema import open_writer
from coordinator.status import PEER_STATES
from tests.coordinator.synthetic import AVERAGING, JOINING, LOST, STEP, SYNCING, SyntheticPeer, SyntheticSwarm

RECENT = 300.0
SAMPLE_EVERY = 5.0
NUMBER = {state: number for number, state in enumerate(PEER_STATES)}


def write_long_history(path: Path, swarm: SyntheticSwarm, end: float) -> History:
    """Write the history of `swarm` from its start to `end`; the `History` comes back open."""
    History(path).close()
    db = open_writer(path)
    db.execute("PRAGMA synchronous=OFF")
    db.execute("BEGIN")
    bulk_end = end - RECENT
    stays = [list(_stays(peer, bulk_end)) for peer in swarm.peers]
    _write_peers(db, swarm, stays, bulk_end)
    _write_counts(db, swarm, stays, bulk_end)
    _write_steps(db, swarm, bulk_end)
    _write_events(db, swarm, bulk_end)
    db.executemany("INSERT INTO meta VALUES (?, ?)", [("first_at", swarm.start), ("heard_at", bulk_end)])
    db.execute("COMMIT")
    db.close()
    history = History(path)
    t = bulk_end + SAMPLE_EVERY
    while t <= end:
        history.record_status(swarm.status(t), t)
        t += SAMPLE_EVERY
    return history


def _stays(peer: SyntheticPeer, end: float) -> Iterator[tuple[float, float, int]]:
    for session in peer.sessions:
        if session.start >= end:
            return
        ready = min(session.start + JOINING + SYNCING, session.end)
        yield session.start, ready, NUMBER["syncing"]
        if session.stalled_at is not None and ready < session.stalled_at < session.end - 120:
            yield ready, session.stalled_at, NUMBER["training"]
            yield session.stalled_at, session.stalled_at + 120, NUMBER["stalled"]
            ready = session.stalled_at + 120
        yield ready, session.end, NUMBER["training"]
        if not session.polite:
            yield session.end, session.end + LOST, NUMBER["lost"]


def _write_peers(db: sqlite3.Connection, swarm: SyntheticSwarm, stays: list, end: float) -> None:
    for number, (peer, own) in enumerate(zip(swarm.peers, stays, strict=True), start=1):
        if not own:
            continue
        db.execute(
            "INSERT INTO peers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(number, peer.peer_id, peer.name, peer.device, peer.hardware, "0.1.0", peer.ranks),
                *(peer.client_mode, own[0][0], min(own[-1][1], end), int(peer.speed * peer.worked(end))),
            ),
        )
        rows = [(number, a, min(b, end) if a < end < b else b, state) for a, b, state in own if a < end]
        db.executemany("INSERT INTO intervals VALUES (?, ?, ?, ?)", rows)
        days = range(int(swarm.start // DAY), int(end // DAY) + 1)
        done = [int(peer.speed * peer.worked(min(end, day * DAY))) for day in (*days, days[-1] + 1)]
        gained = [(day, number, b - a) for day, a, b in zip(days, done, done[1:], strict=False) if b > a]
        db.executemany("INSERT INTO contributions VALUES (?, ?, ?)", gained)


def _write_counts(db: sqlite3.Connection, swarm: SyntheticSwarm, stays: list, end: float) -> None:
    retention = Retention()
    columns, marks = ", ".join(COUNT_COLUMNS), ", ".join("?" * len(COUNT_COLUMNS))
    insert = f"INSERT OR REPLACE INTO counts (tier, t, n, {columns}) VALUES (?, ?, ?, {marks})"
    steps = {1: int(SAMPLE_EVERY), 60: 60, 3600: 3600}
    changes = sorted(
        change
        for peer, own in zip(swarm.peers, stays, strict=True)
        for a, b, state in own
        for change in ((a, state, 1, peer.speed, peer.ranks), (b, state, -1, peer.speed, peer.ranks))
    )
    for tier in TIERS:
        start = max(swarm.start, end - retention.reach(tier))
        times = range(int(start // tier * tier), int(end // tier * tier), steps[tier])
        db.executemany(insert, _count_rows(changes, times, tier, swarm))


def _count_rows(changes: list, times: range, tier: int, swarm: SyntheticSwarm) -> Iterator[tuple]:
    counts, speed, gpus, place, total = [0] * len(PEER_STATES), 0.0, 0, 0, 0.0
    for t in times:
        while place < len(changes) and changes[place][0] <= t:
            _, state, sign, rate, ranks = changes[place]
            counts[state] += sign
            if state == NUMBER["training"]:
                speed += sign * rate
                gpus += sign * ranks
            place += 1
        total += speed * times.step
        shown = list(counts)
        averaging = round(shown[NUMBER["training"]] * AVERAGING / STEP) if tier > 1 else 0
        shown[NUMBER["training"]] -= averaging
        shown[NUMBER["averaging"]] += averaging
        online = sum(counts) - counts[NUMBER["lost"]]
        newest = (online, online, int(total), 0, max(0, swarm.step(t)))
        yield (tier, t, 1, *shown, online // 3, max(0, gpus), max(0.0, speed), *newest)


def _write_steps(db: sqlite3.Connection, swarm: SyntheticSwarm, end: float) -> None:
    chance = random.Random(3)
    rows, saved = [], []
    for step in range(1, swarm.step(end) + 1):
        t = swarm.start + step * STEP
        bad = chance.random() < 0.02
        alive = 20 + step % 400
        rows.append(
            (
                step,
                t,
                swarm.loss(t),
                4096,
                alive - 2 * bad,
                alive,
                0.8 if bad else 1.0,
                3.0,
                alive * 10**7,
                0,
                None,
            )
        )
        if step % 500 == 0:
            saved.append(
                (step, t + 3, f"checkpoints/step-{step:08d}", swarm.loss(t) + 0.08, f"sha256:{step:064x}")
            )
    db.executemany("INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    for hour in range(int(swarm.start // 3600) * 3600, int(end) + 1, 3600):
        if any(
            True
            for _ in db.execute("SELECT 1 FROM steps WHERE t >= ? AND t < ? LIMIT 1", (hour, hour + 3600))
        ):
            db.execute(STEP_HOUR, {"hour": hour})
    db.executemany("INSERT INTO checkpoints VALUES (?, ?, ?, ?, ?)", saved)


def _write_events(db: sqlite3.Connection, swarm: SyntheticSwarm, end: float) -> None:
    events = []
    for number, peer in enumerate(swarm.peers, start=1):
        for session in peer.sessions:
            events.append((session.start, "joined", number, f"{peer.name} joined ({peer.device})"))
            if session.polite:
                events.append((session.end, "left", number, f"{peer.name} left on request"))
            else:
                events.append((session.end, "lost", number, f"{peer.name} fell silent without leaving"))
    rows = [event for event in sorted(events) if event[0] < end]
    db.executemany("INSERT INTO events (t, kind, peer_no, sentence) VALUES (?, ?, ?, ?)", rows)
    db.execute(
        "INSERT INTO event_hours SELECT CAST(t / 3600 AS INTEGER) * 3600, kind, count(*) FROM events GROUP BY 1, 2"
    )


def main() -> None:
    """Write a history to the path given, ending now."""
    path = Path(sys.argv[1])
    days, peers = (float(word) for word in (*sys.argv[2:], "60", "500")[:2])
    now = time.time()
    began = time.monotonic()
    swarm = SyntheticSwarm(1, int(peers), now - days * DAY, days * DAY)
    write_long_history(path, swarm, now).close()
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB, written in {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
