"""Server-sent events: the status of the run to every open page, as soon as there is a new one.

The status is compared, encoded and compressed once, whatever the number of viewers. A new viewer gets a `snapshot`,
then `delta`s with what changed. A viewer that cannot keep up loses deltas and gets a new snapshot. Something is sent
every second, also while nothing is new: silence means that the server is gone, `generated_at` standing still that
the tracker is.
"""

import asyncio
import logging
import time
import zlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic_core import to_json

from coordinator.status import RunStatus

logger = logging.getLogger(__name__)

BACKLOG = 8
SAME_MOMENT = 1.0
LOOK_SECONDS = 0.05
COMPRESSION_LEVEL = 5
# RFC 1952: magic, deflate, no flags, no time, no hints, unknown system
GZIP_HEADER = bytes((0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 255))
# fields of a peer that the page derives by itself: `last_seen` grows with time, `share` shrinks with others' samples
DERIVED = ("last_seen", "share")


@dataclass(frozen=True)
class Message:
    """One event, as it is and as part of a compressed stream."""

    plain: bytes

    @cached_property
    def packed(self) -> bytes:
        """Deflated so that it refers to nothing before it: a viewer's stream may be made of any messages."""
        deflate = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        return deflate.compress(self.plain) + deflate.flush(zlib.Z_FULL_FLUSH)


class Broadcaster:
    """One ticking task and a queue per viewer; lives in the event loop of the web server."""

    def __init__(self, current_status: Callable[[], RunStatus], every: float = 1.0) -> None:
        self._current_status = current_status
        self._every = every
        self._viewers: set[asyncio.Queue[Message | None]] = set()
        self._behind: set[asyncio.Queue[Message | None]] = set()
        self._seen: RunStatus | None = None
        self._status: dict[str, Any] | None = None
        self._kept_snapshot: Message | None = None
        self._now = self._news_at = 0.0
        self._wanted = asyncio.Event()
        self._closed = False

    @property
    def viewers(self) -> int:
        """Number of open streams."""
        return len(self._viewers)

    async def run(self) -> None:
        """Send what is new until cancelled; looks for it only while somebody watches."""
        while True:
            await self._wanted.wait()
            try:
                await self._tick()
                await self._wait_for_news()
            except Exception:
                # The page shows its stale banner meanwhile; the coordinator's own log has the cause.
                logger.exception("dashboard: the status of the run could not be sent")
                await asyncio.sleep(self._every)

    async def _wait_for_news(self) -> None:
        """Until there is a status that was not sent yet, or it is time for a sign of life."""
        sent = time.monotonic()
        while time.monotonic() < sent + self._every:
            await asyncio.sleep(LOOK_SECONDS)
            rested = time.monotonic() >= self._news_at + self._every / 2
            if rested and self._current_status() is not self._seen:
                return

    async def subscribe(self, packed: bool = False) -> AsyncIterator[bytes]:
        """Encoded events for one viewer, until it goes or the server closes; with `packed` a gzip stream of them."""
        queue: asyncio.Queue[Message | None] = asyncio.Queue(BACKLOG)
        if self._closed:
            return
        if not self._viewers:
            self._status = self._kept_snapshot = self._seen = None  # of the time when somebody watched last
        self._viewers.add(queue)
        if self._status is None:
            self._behind.add(queue)  # the first tick brings the snapshot
        else:
            queue.put_nowait(self._snapshot())
        self._wanted.set()
        try:
            if packed:
                yield GZIP_HEADER
            while (message := await queue.get()) is not None:
                yield message.packed if packed else message.plain
        finally:
            self._viewers.discard(queue)
            self._behind.discard(queue)
            if not self._viewers:
                self._wanted.clear()

    def close(self) -> None:
        """End all streams; call in the event loop."""
        self._closed = True
        for queue in self._viewers:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    async def _tick(self) -> None:
        status, before = self._current_status(), self._status
        if before is not None and status is self._seen:
            after, changes = (
                before,
                {"run": {"generated_at": before["generated_at"]}, "peers": [], "gone": []},
            )
        else:
            after = await asyncio.to_thread(status.model_dump, mode="json")
            changes = difference(before, after) if before is not None else {}
            self._news_at = time.monotonic()
        self._seen, self._status, self._now, self._kept_snapshot = status, after, time.time(), None
        delta = _event("delta", {"now": self._now, **changes}) if before is not None else None
        for queue in list(self._viewers):
            self._send(queue, delta)

    def _snapshot(self) -> Message:
        """All there is, encoded once for everyone who comes before the next tick."""
        if self._kept_snapshot is None:
            self._kept_snapshot = _event("snapshot", {"now": self._now, "status": self._status})
        return self._kept_snapshot

    def _send(self, queue: asyncio.Queue[Message | None], delta: Message | None) -> None:
        if queue.full():
            self._behind.add(queue)
            return
        queue.put_nowait(self._snapshot() if delta is None or queue in self._behind else delta)
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
    pairs = [(old.pop(peer["peer_id"], None), peer) for peer in after["peers"]]
    changed = [change for was, peer in pairs if (change := _peer_change(was, peer, elapsed))]
    return {"run": run, "peers": changed, "gone": list(old)}


def _peer_change(
    before: dict[str, Any] | None, after: dict[str, Any], elapsed: float
) -> dict[str, Any] | None:
    """The fields of a peer that changed, with its id; all of a new peer; None if nothing did."""
    if before is None:
        return after
    change = {key: value for key, value in after.items() if key not in DERIVED and value != before[key]}
    if abs(before["last_seen"] + elapsed - after["last_seen"]) > SAME_MOMENT:
        change["last_seen"] = after["last_seen"]
    return {"peer_id": after["peer_id"], **change} if change else None


def _event(name: str, data: dict[str, Any]) -> Message:
    # JSON has no infinities: a browser would refuse the whole message
    return Message(b"event: %b\ndata: %b\n\n" % (name.encode(), to_json(data, inf_nan_mode="null")))
