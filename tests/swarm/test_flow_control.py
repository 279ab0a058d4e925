"""A sender that stays near its receiver, whatever the receiver says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from hivemind.proto.runtime_pb2 import ExpertRequest

from swarm import flow_control
from swarm.flow_control import AHEAD_MESSAGES, WORD_EVERY, Room, Words, messages_ahead


def test_a_sender_waits_until_its_messages_have_come():
    async def scenario() -> list[int]:
        words, room = Words(ExpertRequest(metadata=b"all of it")), Room(most=4)
        said = aiter(words)
        request = await anext(said)
        assert request.metadata == b"all of it"
        listening = asyncio.ensure_future(room.listen(said))
        sent, came, ahead = 0, 0, []
        while came < 100:
            while sent < 100:
                taking = asyncio.ensure_future(room.take())
                done, _pending = await asyncio.wait({taking}, timeout=0.05)
                if not done:
                    taking.cancel()
                    break
                sent += 1
            ahead.append(sent - came)
            for _message in range(WORD_EVERY):
                words.message_came()
                came += 1
        listening.cancel()
        return ahead

    ahead = asyncio.run(asyncio.wait_for(scenario(), timeout=30))
    assert max(ahead) == 4
    assert len(ahead) == 100 / WORD_EVERY


def test_a_receiver_that_lies_gets_no_more_than_it_was_sent():
    async def scenario() -> bool:
        async def lies() -> AsyncIterator[ExpertRequest]:
            for claim in (b"\xff" * 8, b"\xff" * 100, b""):
                yield ExpertRequest(metadata=claim)

        room = Room(most=2)
        for _message in range(2):
            await room.take()
        await room.listen(lies())
        for _message in range(2):
            await room.take()
        waiting = asyncio.ensure_future(room.take())
        await asyncio.sleep(0)
        is_held_back = not waiting.done()
        waiting.cancel()
        return is_held_back

    assert asyncio.run(asyncio.wait_for(scenario(), timeout=10))


def test_a_receiver_speaks_now_and_then_although_nothing_comes(monkeypatch):
    monkeypatch.setattr(flow_control, "WORD_SECONDS", 0.01)

    async def scenario() -> list[int]:
        said = aiter(Words(ExpertRequest()))
        await anext(said)
        return [int.from_bytes((await anext(said)).metadata, "big") for _word in range(3)]

    assert asyncio.run(asyncio.wait_for(scenario(), timeout=10)) == [0, 0, 0]


def test_a_receiver_that_is_cancelled_just_when_it_should_speak_says_nothing_more():
    async def scenario() -> bool:
        words, said = Words(ExpertRequest()), list[ExpertRequest]()

        async def speak() -> None:
            async for word in words:
                said.append(word)

        speaking = asyncio.ensure_future(speak())
        while not said:
            await asyncio.sleep(0)
        for _turn in range(5):  # it waits for messages now
            await asyncio.sleep(0)
        for _message in range(WORD_EVERY):
            words.message_came()
        await asyncio.sleep(0)
        speaking.cancel()
        await asyncio.wait({speaking})
        return speaking.cancelled() and len(said) <= 2

    assert asyncio.run(asyncio.wait_for(scenario(), timeout=10))


def test_less_is_on_its_way_over_slow_links():
    fewest, most = AHEAD_MESSAGES
    ahead = [messages_ahead(megabits, 2**16) for megabits in (0.0, 1.0, 50.0, 100.0, 1000.0)]
    assert ahead == sorted(ahead)
    assert (ahead[0], ahead[-1]) == (fewest, most)
    assert messages_ahead(None, 2**16) == most
