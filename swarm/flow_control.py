"""How much of a stream may be on its way.

What was handed to the system cannot be taken back: without a limit, megabytes of every stream wait in the buffers of a
link, and what should go first, a round of averaging, waits behind them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

# what the sender's link carries in this time may be on its way in each stream
AHEAD_SECONDS = 0.1
AHEAD_MESSAGES = (4, 32)


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
