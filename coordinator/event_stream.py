"""Server-sent events: the status of the run to every open page, about once a second.

The status is asked for, compared and encoded once per tick, whatever the number of viewers. A new viewer
gets a `snapshot`, then `delta`s with what changed. A viewer that cannot keep up loses deltas and gets a
new snapshot. Every tick sends something, so silence means that the server is gone; `generated_at`
standing still means that the tracker is.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from coordinator.status import RunStatus

logger = logging.getLogger(__name__)

BACKLOG = 8
SAME_MOMENT = 1.0


class Broadcaster:
    """One ticking task and a queue per viewer; lives in the event loop of the web server."""

    def __init__(self, current_status: Callable[[], RunStatus], every: float = 1.0) -> None:
        self._current_status = current_status
        self._every = every
        self._viewers: set[asyncio.Queue[bytes | None]] = set()
        self._behind: set[asyncio.Queue[bytes | None]] = set()
        self._status: dict[str, Any] | None = None
        self._now = 0.0
        self._wanted = asyncio.Event()
        self._closed = False

    @property
    def viewers(self) -> int:
        """Number of open streams."""
        return len(self._viewers)

    async def run(self) -> None:
        """Tick until cancelled; asks for the status only while somebody watches."""
        while True:
            await self._wanted.wait()
            started = time.monotonic()
            try:
                await self._tick()
            except Exception:
                # The page shows its stale banner meanwhile; the coordinator's own log has the cause.
                logger.exception("dashboard: the status of the run could not be sent")
            await asyncio.sleep(max(0.05, self._every - (time.monotonic() - started)))

    async def subscribe(self) -> AsyncIterator[bytes]:
        """Encoded events for one viewer, until it goes or the server closes."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue(BACKLOG)
        if self._closed:
            return
        self._viewers.add(queue)
        if self._status is None:
            self._behind.add(queue)  # the first tick brings the snapshot
        else:
            queue.put_nowait(self._snapshot(self._status))
        self._wanted.set()
        try:
            while (message := await queue.get()) is not None:
                yield message
        finally:
            self._viewers.discard(queue)
            self._behind.discard(queue)
            if not self._viewers:
                self._wanted.clear()
                self._status = None

    def close(self) -> None:
        """End all streams; call in the event loop."""
        self._closed = True
        for queue in self._viewers:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    async def _tick(self) -> None:
        status = await asyncio.to_thread(lambda: self._current_status().model_dump(mode="json"))
        before, self._status, self._now = self._status, status, time.time()
        delta = _event("delta", {"now": self._now, **difference(before, status)}) if before else None
        snapshot: bytes | None = None
        for queue in list(self._viewers):
            if delta is None or queue in self._behind:
                snapshot = snapshot or self._snapshot(status)
            self._send(queue, delta, snapshot)

    def _snapshot(self, status: dict[str, Any]) -> bytes:
        return _event("snapshot", {"now": self._now, "status": status})

    def _send(self, queue: asyncio.Queue[bytes | None], delta: bytes | None, snapshot: bytes | None) -> None:
        behind = delta is None or queue in self._behind
        message = snapshot if behind else delta
        if queue.full():
            self._behind.add(queue)
            return
        queue.put_nowait(message)
        self._behind.discard(queue)


def difference(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What turns a page that shows `before` into `after`: changed run fields and peers, ids of gone peers."""
    run = {
        key: value
        for key, value in after.items()
        if key != "peers" and (key == "generated_at" or value != before.get(key))
    }
    old = {peer["peer_id"]: peer for peer in before["peers"]}
    elapsed = after["generated_at"] - before["generated_at"]
    changed = [peer for peer in after["peers"] if _differs(old.pop(peer["peer_id"], None), peer, elapsed)]
    return {"run": run, "peers": changed, "gone": list(old)}


def _differs(before: dict[str, Any] | None, after: dict[str, Any], elapsed: float) -> bool:
    if before is None:
        return True
    # `last_seen` grows by itself; the page adds the time that passed.
    if abs(before["last_seen"] + elapsed - after["last_seen"]) > SAME_MOMENT:
        return True
    return any(value != before[key] for key, value in after.items() if key != "last_seen")


def _event(name: str, data: dict[str, Any]) -> bytes:
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"event: {name}\ndata: {text}\n\n".encode()
