"""Who receives a stream closes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from swarm.closing import lingering, only


class Sender:
    """Sends numbers and waits to be closed, as our handlers do."""

    def __init__(self, numbers: int):
        self.closed = False
        self._numbers = numbers

    async def stream(self) -> AsyncIterator[int]:
        try:
            async for number in lingering(self._numbers, counting(self._numbers)):
                yield number
        finally:
            self.closed = True


async def counting(numbers: int) -> AsyncIterator[int]:
    for number in range(numbers):
        yield number


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
    async def scenario() -> list[int]:
        return [number async for number in only(2, counting(1))]  # type: ignore[arg-type]

    assert asyncio.run(scenario()) == [0]


def test_who_could_not_send_everything_closes_at_once():
    async def scenario() -> list[int]:
        return [number async for number in lingering(2, counting(1))]

    assert asyncio.run(asyncio.wait_for(scenario(), timeout=5)) == [0]


def test_who_has_sent_everything_does_not_close():
    async def scenario() -> None:
        stream = lingering(1, counting(1))
        assert await anext(stream) == 0
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(stream), timeout=0.2)

    asyncio.run(scenario())
