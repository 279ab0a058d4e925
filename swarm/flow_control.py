"""A stream whose sender is never far ahead of its receiver, because the receiver says how much has come.

What was handed to the system cannot be taken back: without this, megabytes of every stream wait in the buffers of a
link, and what should go first, a round of averaging, waits behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from hivemind.proto import runtime_pb2

# messages between two words of the receiver
WORD_EVERY = 2
# only by sending does a receiver notice that the other side has closed the stream
WORD_SECONDS = 2.0
# what the sender's link carries in this time may be on its way in each stream
AHEAD_SECONDS = 0.1
AHEAD_MESSAGES = (2 * WORD_EVERY, 32)


def messages_ahead(bandwidth: float | None, message_bytes: int) -> int:
    """How many messages of a stream may be on their way over a link of this bandwidth in Mbit/s; None is not known.

    >>> messages_ahead(100.0, 2**16)
    19
    """
    fewest, most = AHEAD_MESSAGES
    if bandwidth is None:
        return most
    return min(max(round(bandwidth * 1e6 / 8 * AHEAD_SECONDS / message_bytes), fewest), most)


async def wait_at_most(seconds: float, event: Coroutine[Any, Any, Any]) -> None:
    """Wait for an event, or so long.

    `asyncio.wait_for` swallows a cancellation that comes together with the event (until Python 3.12).
    """
    waiting = asyncio.ensure_future(event)
    try:
        await asyncio.wait({waiting}, timeout=seconds)
    finally:
        waiting.cancel()


class Words:
    """What a receiver says: its request, then now and then how many messages have come."""

    def __init__(self, request: runtime_pb2.ExpertRequest):
        self._request, self._came, self._due = request, 0, asyncio.Event()

    def message_came(self) -> None:
        """Call for every message."""
        self._came += 1
        if self._came % WORD_EVERY == 0:
            self._due.set()

    async def __aiter__(self) -> AsyncIterator[runtime_pb2.ExpertRequest]:
        yield self._request
        while True:
            await wait_at_most(WORD_SECONDS, self._due.wait())
            self._due.clear()
            yield runtime_pb2.ExpertRequest(metadata=self._came.to_bytes(8, "big"))


class Room:
    """The sender's knowledge of how many of its messages are on their way.

    :param most: that may be
    """

    def __init__(self, most: int):
        self._most, self._sent, self._came = most, 0, 0
        self._heard = asyncio.Event()

    async def listen(self, words: AsyncIterator[runtime_pb2.ExpertRequest]) -> None:
        """Hear what the receiver says after its request, until the stream ends."""
        async for word in words:
            self._came = max(self._came, min(int.from_bytes(word.metadata, "big"), self._sent))
            self._heard.set()

    async def take(self) -> None:
        """Call before every message: waits until it may be sent."""
        while self._sent - self._came >= self._most:
            self._heard.clear()
            await self._heard.wait()
        self._sent += 1
