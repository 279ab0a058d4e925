"""The reducer of an all-reduce when one of those who send to it dies in the middle."""

from __future__ import annotations

import asyncio

import torch

from swarm.allreduce import ShieldedReducer

ONE_PART = (torch.Size([4]),)


def test_a_sender_that_dies_after_sending_does_not_take_the_part_from_the_others():
    async def scenario() -> list[torch.Tensor]:
        reducer = ShieldedReducer(ONE_PART, num_senders=3)
        first = asyncio.ensure_future(reducer.accumulate_part(0, 0, torch.full((4,), 1.0)))
        dying = asyncio.ensure_future(reducer.accumulate_part(1, 0, torch.full((4,), 2.0)))
        await asyncio.sleep(0)  # both have sent their part and wait for the third
        await asyncio.sleep(0)
        dying.cancel()
        reducer.on_sender_failed(1)
        last = asyncio.ensure_future(reducer.accumulate_part(2, 0, torch.full((4,), 6.0)))
        return await asyncio.wait_for(asyncio.gather(first, last), timeout=5)

    first, last = asyncio.run(scenario())
    assert first.tolist() == last.tolist() == [3.0] * 4  # what it had sent counts


def test_a_sender_that_dies_before_sending_is_left_out():
    async def scenario() -> torch.Tensor:
        reducer = ShieldedReducer(ONE_PART, num_senders=2)
        first = asyncio.ensure_future(reducer.accumulate_part(0, 0, torch.full((4,), 1.0)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        reducer.on_sender_failed(1)
        return await asyncio.wait_for(first, timeout=5)

    assert asyncio.run(scenario()).tolist() == [1.0] * 4
