"""Who receives a stream closes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from swarm.closing import only, until_receiver_closes


class Sender:
    """Sends numbers, then waits to be closed, as our handlers do."""

    def __init__(self, numbers: int):
        self.closed = False
        self._numbers = numbers

    async def stream(self) -> AsyncIterator[int]:
        try:
            for number in range(self._numbers):
                yield number
            await until_receiver_closes()
        finally:
            self.closed = True


async def received(sender: Sender, count: int) -> list[int]:
    return [number async for number in only(count, sender.stream())]  # type: ignore[arg-type]


def test_the_stream_is_closed_as_soon_as_everything_has_come():
    sender = Sender(3)
    assert asyncio.run(asyncio.wait_for(received(sender, 3), timeout=5)) == [0, 1, 2]
    assert sender.closed


def test_a_stream_with_too_much_is_closed_all_the_same():
    sender = Sender(9)
    assert asyncio.run(received(sender, 2)) == [0, 1]
    assert sender.closed


def test_a_stream_that_ends_too_soon_ends():
    async def short() -> AsyncIterator[int]:
        yield 0

    async def scenario() -> list[int]:
        return [number async for number in only(2, short())]  # type: ignore[arg-type]

    assert asyncio.run(scenario()) == [0]
