"""Whoever receives a stream closes it, for the end of what is sent can be lost when the sender does.

On slow links and busy machines a stream ends now and then before its last message has come, which looks like the end of
it. So who has sent everything waits until the other side, which knows how much must come, has closed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

Message = TypeVar("Message")
# how long the last message may be on its way
LINGER_SECONDS = 10.0


async def until_receiver_closes() -> None:
    """Call at the end of a handler that answers with a stream; hivemind cancels it when the other side closes."""
    await asyncio.sleep(LINGER_SECONDS)


async def only(count: int, stream: AsyncGenerator[Message, None]) -> AsyncIterator[Message]:
    """So many messages of a stream, which is closed then."""
    async with contextlib.aclosing(stream):
        async for message in stream:
            yield message
            count -= 1
            if count == 0:
                return


async def lingering(count: int, stream: AsyncIterator[Message]) -> AsyncIterator[Message]:
    """All messages of a stream; if they were as many as the receiver waits for, it is left to the receiver to close."""
    async for message in stream:
        yield message
        count -= 1
    if count == 0:
        await until_receiver_closes()
