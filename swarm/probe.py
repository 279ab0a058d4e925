"""What every participant answers to somebody who wants to know whether he could take part: `peer doctor`.

Two calls. One opens a TCP connection to a port of the caller's own address, as this participant sees it, and says
whether that worked: a caller cannot make us knock at anybody else's door. The other takes bytes and counts them.
Nothing is kept; who asks for more than a little at a time is cut off.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from hivemind.p2p import P2P, P2PContext

from swarm.service import (
    NoAnswer,
    NotReached,
    ServiceThread,
    add_collect_handler,
    add_unary_handler,
    call_collect_handler,
)

PORT_HANDLER = "artel.probe.port"
UPLOAD_HANDLER = "artel.probe.upload"
CONNECT_SECONDS = 3.0
MAX_UPLOAD_BYTES = 64 * 2**20
MAX_AT_ONCE = 4
# an upload that takes so long is long enough to tell the speed
UPLOAD_SECONDS = 1.0
UPLOAD_CHUNK_BYTES = 2**18


@dataclass(frozen=True)
class PortAnswer:
    """What a participant saw of the caller.

    :param host: the caller's address as it arrived there; empty if it came through a relay
    :param reason: why no connection to its port came about; empty if one did
    """

    host: str
    reason: str


@dataclass(frozen=True)
class Speed:
    """A measured transfer."""

    bytes: int
    seconds: float

    @property
    def megabits_per_second(self) -> float:
        """In the unit that lines are sold in."""
        return self.bytes * 8 / 1e6 / max(self.seconds, 1e-9)


class ProbeServer:
    """Answers probes on an open service.

    >>> ProbeServer().start(service)                       # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._slots = asyncio.Semaphore(MAX_AT_ONCE)

    def start(self, service: ServiceThread) -> None:
        """Register the two handlers."""
        self._p2p = service.p2p
        service.run(add_unary_handler(service.p2p, PORT_HANDLER, self._try_port), timeout=10)
        service.run(add_collect_handler(service.p2p, UPLOAD_HANDLER, self._count), timeout=10)

    async def _try_port(self, request: bytes, context: P2PContext) -> bytes:
        port = int(json.loads(request)["port"])
        async with self._slots:
            host = await observed_host(self._p2p, str(context.remote_id))
            reason = await why_closed(host, port) if host else "the call came through a relay"
        return json.dumps({"host": host, "reason": reason}).encode()

    async def _count(self, messages: AsyncIterator[bytes], _peer: str) -> bytes:
        received = 0
        async for message in messages:
            received += len(message)
            if received > MAX_UPLOAD_BYTES:
                raise ValueError(f"more than {MAX_UPLOAD_BYTES} bytes")
        return json.dumps({"bytes": received}).encode()


async def measure_upload(p2p: P2P, peer_id: str, enough_megabits: float = math.inf) -> Speed | None:
    """Send bytes that a participant counts and drops, more and more until it takes a while; None without an answer.

    :param enough_megabits: a second; faster than this need not be told from faster still
    """
    chunks = 4
    while True:
        began = time.monotonic()
        try:
            messages = (bytes(UPLOAD_CHUNK_BYTES) for _ in range(chunks))
            answer = await call_collect_handler(p2p, peer_id, UPLOAD_HANDLER, messages)
        except (NotReached, NoAnswer):
            return None
        seconds, received = time.monotonic() - began, int(json.loads(answer)["bytes"])
        speed = Speed(received, seconds)
        known = seconds > UPLOAD_SECONDS or speed.megabits_per_second >= enough_megabits
        if known or 4 * received > MAX_UPLOAD_BYTES:
            return speed
        chunks *= 4


async def observed_host(p2p: P2P, peer_id: str) -> str:
    """The IP address from which a connected peer's connection comes; empty if there is none."""
    for peer in await p2p.list_peers():
        if str(peer.peer_id) != peer_id:
            continue
        for address in map(str, peer.addrs):
            parts = address.split("/")
            if len(parts) > 4 and parts[1] in ("ip4", "ip6") and "p2p-circuit" not in parts:
                return parts[2]
    return ""


async def why_closed(host: str, port: int) -> str:
    """Why no TCP connection to a port can be made, in words; empty if it can."""
    try:
        connecting = asyncio.open_connection(host, port)
        _reader, writer = await asyncio.wait_for(connecting, CONNECT_SECONDS)
    except asyncio.TimeoutError:
        return f"no answer within {CONNECT_SECONDS:.0f} s"
    except (OSError, OverflowError) as error:
        return getattr(error, "strerror", None) or str(error)
    writer.close()
    return ""
