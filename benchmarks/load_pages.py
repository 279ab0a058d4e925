"""The open pages of `coordinator_load`: event streams, compressed as browsers ask for them, and how late they are."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import statistics
import time
import urllib.parse
import zlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict, dataclass

from benchmarks.load_peers import PROBE

# a browser has a machine of its own; here all of them would take the coordinator's cores
PARSING_VIEWERS = 5
SILENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Sighting:
    """One record of the probe on one page: seconds it took from stage to stage.

    :param stored: until the DHT's nodes had the record before it
    :param in_view: until the tracker's status had it: storing, waiting for the tracker's next look, and reading
    :param sent: from there until the stream sent it
    :param received: from there until the page had unpacked it
    """

    stored: float
    in_view: float
    sent: float
    received: float

    @property
    def late(self) -> float:
        """From record to page."""
        return self.in_view + self.sent + self.received


@dataclass(frozen=True)
class Stages:
    """Seconds at the median and at the 99th percentile, and the worst."""

    median: float
    p99: float
    worst: float

    @classmethod
    def of(cls, seconds: Sequence[float]) -> Stages:
        """Of at least one value."""
        ordered = sorted(seconds)
        return cls(statistics.median(ordered), ordered[int(0.99 * (len(ordered) - 1))], ordered[-1])


async def hold_streams(address: str, viewers: int, seconds: float) -> None:
    """Read that many event streams; prints what was seen of the probe as one JSON object."""
    place = urllib.parse.urlsplit(address)
    sightings: list[Sighting] = []
    looks: set[float] = set()
    received = await asyncio.gather(
        *(
            _read_stream(
                *(place.hostname or "", place.port or 0, seconds),
                *(sightings, looks, viewer < PARSING_VIEWERS),
            )
            for viewer in range(viewers)
        )
    )
    if not sightings or len(looks) < 2:
        raise RuntimeError("no page has seen the probe: is the coordinator alive?")
    stages = {
        name: asdict(Stages.of([getattr(sighting, name) for sighting in sightings]))
        for name in ("stored", "in_view", "sent", "received", "late")
    }
    ordered = sorted(looks)
    stages["look"] = asdict(Stages.of([after - before for before, after in itertools.pairwise(ordered)]))
    found = {"stages": stages, "count": len(sightings), "viewers": viewers}
    print(json.dumps({**found, "bytes": sum(received), "seconds": seconds}), flush=True)


async def _read_stream(
    host: str, port: int, seconds: float, sightings: list[Sighting], looks: set[float], parses: bool
) -> int:
    """One page; returns the bytes received."""
    reader, writer = await asyncio.open_connection(host, port, limit=2**24)
    writer.write(
        f"GET /api/stream HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n"
        "Accept-Encoding: gzip\r\n\r\n".encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"content-encoding: gzip" not in head:
        raise RuntimeError("the stream is not compressed")
    end, received, probe = time.monotonic() + seconds, 0, ""
    unpack, text = zlib.decompressobj(zlib.MAX_WBITS | 16), b""
    async for chunk in _chunks(reader):
        received += len(chunk)
        if time.monotonic() >= end:
            break
        if not parses:
            continue
        text += unpack.decompress(chunk)
        *events, text = text.split(b"\n\n")
        for event in events:
            data, now = json.loads(event.partition(b"\ndata: ")[2]), time.time()
            status = data.get("status") or {**data["run"], "peers": data["peers"]}
            looks.add(status["generated_at"])
            for peer in status["peers"]:
                if peer.get("name") == PROBE:
                    probe = peer["peer_id"]
                elif peer["peer_id"] == probe and "loss" in peer:
                    sightings.append(_sighting(peer, status["generated_at"], data["now"], now))
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return received


def _sighting(peer: dict, viewed: float, sent: float, received: float) -> Sighting:
    return Sighting(
        stored=peer.get("samples_per_second", 0.0),
        in_view=viewed - peer["loss"],
        sent=sent - viewed,
        received=received - sent,
    )


async def _chunks(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """The body of a chunked HTTP answer."""
    while size := int(await asyncio.wait_for(reader.readline(), SILENCE_SECONDS), 16):
        yield await reader.readexactly(size)
        await reader.readexactly(2)
