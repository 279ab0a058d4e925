"""Our own remote calls over libp2p, beside hivemind's: a thread with an event loop that serves and makes them.

Messages are protobuf's `BytesValue`, so that no code is generated; their content is JSON or raw bytes and is
validated by whoever handles it. Peers are authenticated by libp2p: `context.remote_id` is who really called.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

import hivemind
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PContext, P2PDaemonError, P2PHandlerError, PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import ControlFailure

Result = TypeVar("Result")
# one after another without progress: a single stream breaks off now and then on a busy machine, and looks like one that
# has ended
MAX_BROKEN_STREAMS = 3
# that somebody may go on sending after we have decided about it
DRAIN_SECONDS = 10.0
# what reading an answer raises if the other side dies in the middle of it
BROKEN_STREAM = (OSError, EOFError, ValueError)

UnaryHandler = Callable[[bytes, P2PContext], Awaitable[bytes]]
StreamHandler = Callable[[bytes, P2PContext], AsyncIterator[bytes]]
# (messages, peer id of who really sent them)
CollectHandler = Callable[[AsyncIterator[bytes], str], Awaitable[bytes]]


class NotReached(Exception):
    """There was no connection to a peer, so it has received nothing."""


class NoAnswer(Exception):
    """A peer may have received what was sent, but did not answer."""


class ServiceThread:
    """An event loop in a thread, connected to the libp2p daemon of a running DHT.

    >>> service = ServiceThread(dht)                      # doctest: +SKIP
    >>> service.run(add_unary_handler(service.p2p, "artel.echo", echo), timeout=5)   # doctest: +SKIP
    """

    def __init__(self, dht: hivemind.DHT):
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="service", daemon=True)
        self._thread.start()
        self.p2p: P2P = self.run(dht.replicate_p2p(), timeout=30)

    def run(self, coroutine: Coroutine[Any, Any, Result], timeout: float) -> Result:
        """Run a coroutine in the service's loop from any other thread; raises `TimeoutError` after `timeout` s."""
        future = asyncio.run_coroutine_threadsafe(asyncio.wait_for(coroutine, timeout), self._loop)
        return future.result(timeout + 1)

    def stop(self) -> None:
        """Stop serving; the libp2p daemon belongs to the DHT and stays."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(2)


async def add_unary_handler(p2p: P2P, name: str, handler: UnaryHandler) -> None:
    """Serve `name`: one message in, one out."""

    async def handle(request: BytesValue, context: P2PContext) -> BytesValue:
        return BytesValue(value=await handler(request.value, context))

    await p2p.add_protobuf_handler(name, handle, BytesValue)


async def add_stream_handler(p2p: P2P, name: str, handler: StreamHandler) -> None:
    """Serve `name`: one message in, a stream of messages out."""

    async def handle(request: BytesValue, context: P2PContext) -> AsyncIterator[BytesValue]:
        async for chunk in handler(request.value, context):
            yield BytesValue(value=chunk)

    await p2p.add_protobuf_handler(name, handle, BytesValue, stream_output=True)


async def add_collect_handler(p2p: P2P, name: str, handler: CollectHandler) -> None:
    """Serve `name`: a stream of messages in, one message out."""

    async def handle(requests: AsyncIterator[BytesValue], context: P2PContext) -> BytesValue:
        answer = await handler(_values(requests), str(context.remote_id))
        # the connection of whoever still sends would be reset, and the answer lost with it
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(_drain(requests), DRAIN_SECONDS)
        return BytesValue(value=answer)

    await p2p.add_protobuf_handler(name, handle, BytesValue, stream_input=True)


async def call_collect_handler(p2p: P2P, peer_id: str, name: str, messages: Iterable[bytes]) -> bytes:
    """Send a stream of messages to `name` of a peer; its answer. Raises `NotReached` or `NoAnswer`."""

    async def wrapped() -> AsyncIterator[BytesValue]:
        for message in messages:
            yield BytesValue(value=message)

    try:
        answer = await p2p.call_protobuf_handler(PeerID.from_base58(peer_id), name, wrapped(), BytesValue)
    except ControlFailure as error:
        raise NotReached(str(error)) from None
    except (P2PDaemonError, P2PHandlerError, *BROKEN_STREAM) as error:
        raise NoAnswer(str(error) or type(error).__name__) from None
    return answer.value


async def _drain(requests: AsyncIterator[BytesValue]) -> None:
    async for _request in requests:
        pass


async def _values(requests: AsyncIterator[BytesValue]) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request.value
