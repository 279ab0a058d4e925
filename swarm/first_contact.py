"""A look at a run through its first contact, without joining: round trip, clocks, who sees us where, bandwidth.

For `peer doctor`. Every figure comes from a real exchange with the peer that the address names; a contact that does
not know a call (another version of Artel) gives `None`, never a guess.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PDaemonError, P2PHandlerError, PeerID
from hivemind.proto.dht_pb2 import PingRequest, PingResponse

from swarm.addresses import Address
from swarm.bundle import SignedManifest
from swarm.credentials import Credentials
from swarm.dht import STARTUP_TIMEOUT_SECONDS, explain_daemon_error
from swarm.errors import OperationFailed
from swarm.lifeline import daemons_tied_to_us
from swarm.probe import PORT_HANDLER, PortAnswer, Speed, measure_upload
from swarm.service import BROKEN_STREAM, MAX_BROKEN_STREAMS, NoAnswer, NotReached
from swarm.sockets import name_our_sockets
from swarm.transfer import FILE_HANDLER, FileRequest, fetch_manifest

Result = TypeVar("Result")

PINGS = 5
CALL_SECONDS = 30.0
MEASURE_SECONDS = 3.0
UNANSWERED = (
    *(P2PDaemonError, P2PHandlerError, NoAnswer, NotReached, asyncio.TimeoutError, ConnectionError),
    *BROKEN_STREAM,
)


@dataclass(frozen=True)
class ClockReading:
    """Seconds that the contact's clock is ahead of ours, give or take `uncertainty`; `round_trip` of the message."""

    offset: float
    uncertainty: float
    round_trip: float


class FirstContact:
    """A participant that we are connected to, and what can be learned from it.

    >>> async with first_contact(addresses, ["/ip4/0.0.0.0/tcp/0"]) as contact:   # doctest: +SKIP
    ...     print(await contact.clock(), await contact.upload())
    """

    def __init__(self, p2p: P2P, address: Address, credentials: Credentials | None = None):
        self._p2p, self.address, self._credentials = p2p, address, credentials
        self._peer = PeerID.from_base58(address.peer_id)

    async def manifest(self) -> SignedManifest:
        """The signed manifest of the run that the contact serves.

        An invitation among our credentials turns into a ticket, as it would when we joined.

        :raises OperationFailed: it does not answer
        :raises BadInput: in its words, why it does not let us in
        """
        signed = await _answer(fetch_manifest(self._p2p, self.address, self._credentials))
        if signed is None:
            raise OperationFailed(
                f"{self.address.text} does not answer as a participant of a run: "
                "ask for the coordinator's current `peer join` line"
            )
        return signed

    async def clock(self) -> ClockReading | None:
        """Compare clocks by a few pings of the DHT; the quickest says most (Cristian, 1989)."""
        readings = []
        for _ in range(PINGS):
            sent, began = time.time(), time.monotonic()
            call = self._p2p.call_protobuf_handler(
                self._peer, "DHTProtocol.rpc_ping", PingRequest(), PingResponse
            )
            response = await _answer(call)
            round_trip = time.monotonic() - began
            if response is None or not response.dht_time:
                return None
            offset = response.dht_time - (sent + round_trip / 2)
            readings.append(ClockReading(offset, round_trip / 2, round_trip))
        return min(readings, key=lambda reading: reading.round_trip)

    async def try_our_port(self, port: int) -> PortAnswer | None:
        """Let the contact connect to a port of ours, at the address where it sees us."""
        request = BytesValue(value=json.dumps({"port": port}).encode())
        answer = await _answer(self._p2p.call_protobuf_handler(self._peer, PORT_HANDLER, request, BytesValue))
        if answer is None:
            return None
        values = json.loads(answer.value)
        return PortAnswer(host=str(values["host"]), reason=str(values["reason"]))

    async def download(self, signed: SignedManifest) -> Speed | None:
        """Fetch the largest file of the run bundle again and again for a few seconds, and keep nothing."""
        file = max(signed.open().files, key=lambda file: file.size)
        ticket = self._credentials.show().decode() if self._credentials is not None else ""
        wanted = FileRequest(sha256=file.sha256, offset=0, ticket=ticket)
        request = BytesValue(value=wanted.model_dump_json().encode())
        received, broken_off, began = 0, 0, time.monotonic()
        # a slow line is measured by its first message, however late that is
        while broken_off < MAX_BROKEN_STREAMS and not (
            received and time.monotonic() > began + MEASURE_SECONDS
        ):
            stream = await _answer(
                self._p2p.iterate_protobuf_handler(self._peer, FILE_HANDLER, request, BytesValue)
            )
            arrived = 0 if stream is None else await _drain(stream, began + MEASURE_SECONDS)
            received += arrived
            broken_off = 0 if arrived else broken_off + 1
        return Speed(received, time.monotonic() - began) if received else None

    async def upload(self) -> Speed | None:
        """Send bytes that the contact counts and drops, more and more until it takes a second."""
        return await _answer(measure_upload(self._p2p, self.address.peer_id))

    async def our_addresses(self) -> list[str]:
        """Where we listen, as others would be told: without our peer id."""
        addresses = await self._p2p.get_visible_maddrs(latest=True)
        return [str(address).partition("/p2p/")[0] for address in addresses]


@asynccontextmanager
async def first_contact(
    addresses: Sequence[Address],
    host_maddrs: Sequence[str],
    announce_maddrs: Sequence[str] = (),
    *,
    client_mode: bool = False,
    credentials: Credentials | None = None,
) -> AsyncIterator[FirstContact]:
    """libp2p as `peer join` would start it, connected to the first address that answers; raises `OperationFailed`.

    :param credentials: whose peer we are, and what to show where the run is by invitation; else we are nobody
    """
    name_our_sockets()
    identity = {"identity_path": str(credentials.identity_path)} if credentials is not None else {}
    try:
        with daemons_tied_to_us():
            p2p = await P2P.create(
                initial_peers=[address.text for address in addresses],
                host_maddrs=list(host_maddrs),
                announce_maddrs=list(announce_maddrs) or None,
                dht_mode="client",
                no_listen=client_mode,
                startup_timeout=STARTUP_TIMEOUT_SECONDS,
                check_if_identity_free=False,
                **identity,
            )
    except P2PDaemonError as error:
        raise OperationFailed(f"cannot connect to the swarm: {explain_daemon_error(error)}") from None
    try:
        connected = {str(peer.peer_id) for peer in await p2p.list_peers()}
        answering = [address for address in addresses if address.peer_id in connected]
        yield FirstContact(p2p, (answering or addresses)[0], credentials)
    finally:
        await p2p.shutdown()


async def _drain(stream: AsyncIterator[BytesValue], until: float) -> int:
    """Bytes of a stream until a moment, but at least of its first message; 0 if it breaks off before that."""
    received = 0
    iterator = stream.__aiter__()
    while not received or time.monotonic() < until:
        try:
            message = await asyncio.wait_for(iterator.__anext__(), CALL_SECONDS)
        except (StopAsyncIteration, *UNANSWERED):
            break
        received += len(message.value)
    return received


async def _answer(call: Awaitable[Result]) -> Result | None:
    """What a call answers; None if the contact does not know it, or is gone."""
    try:
        return await asyncio.wait_for(call, CALL_SECONDS)
    except UNANSWERED:
        return None
