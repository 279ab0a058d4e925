"""What a peer that stays takes over from one that leaves, and what it does not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peer.accumulator import Accumulator
from peer.hand_over import WAITING_OFFERS, Answer, HandOverDesk, Offer
from swarm.clock import SwarmView
from swarm.codecs import compression_for
from swarm.records import Lease
from swarm.settings import SettingsBook
from swarm.spec import RunSpec
from swarm.states import PeerState
from swarm.tensor_stream import pack_messages

SPEC = RunSpec(name="small")
LEAVERS = [f"leaver {number}" for number in range(WAITING_OFFERS + 2)]
SHAPE = torch.Size([100])
OWN_SAMPLES = 16


class Heir:
    """A desk beside an accumulator with a gradient of ones."""

    def __init__(self, samples: int = OWN_SAMPLES) -> None:
        now = time.time()
        lease = Lease(
            run_id=SPEC.run_id, issued=now, expires=now + 20, state=PeerState.TRAINING, step=0, samples=1
        )
        presence: Any = SimpleNamespace(
            activity=SimpleNamespace(departing=False, state=PeerState.TRAINING, step=0, branch=""),
            view=SwarmView(now=now, leases=dict.fromkeys(LEAVERS, lease)),
            settings=SettingsBook(SPEC),
        )
        self.desk = HandOverDesk(presence, [SHAPE])
        self.parameter = torch.nn.Parameter(torch.zeros(SHAPE))
        self.accumulator = Accumulator([self.parameter])
        self.compute(samples)

    def compute(self, samples: int) -> None:
        if samples:
            self.accumulator.add(self.parameter.sum(), samples)

    def settle(self) -> int:
        return self.desk.settle(self.accumulator, step=0, branch="")

    def offer(self, messages: AsyncIterator[bytes], leaver: str = LEAVERS[0]) -> asyncio.Future[bytes]:
        return asyncio.ensure_future(self.desk._receive(messages, leaver))


async def gift(value: float, samples: int = OWN_SAMPLES, more: Sequence[bytes] = ()) -> AsyncIterator[bytes]:
    yield Offer(step=0, branch="", samples=samples, loss_sum=0.0).model_dump_json().encode()
    for message in pack_messages([torch.full(SHAPE, value)], compression_for("none")):
        yield message
    for message in more:
        yield message


async def endless() -> AsyncIterator[bytes]:
    yield Offer(step=0, branch="", samples=8, loss_sum=0.0).model_dump_json().encode()
    await asyncio.Event().wait()


async def let_it_arrive() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def refusal(answer: bytes) -> str:
    return Answer.model_validate_json(answer).refused


def test_an_ordinary_gradient_is_added_by_its_samples():
    async def scenario() -> tuple[int, str]:
        answer = heir.offer(gift(2.0))
        await let_it_arrive()
        return heir.settle(), refusal(await answer)

    heir = Heir()
    assert asyncio.run(scenario()) == (OWN_SAMPLES, "")
    assert heir.accumulator.own_mean()[0].tolist() == [1.5] * 100  # type: ignore[index]


@pytest.mark.parametrize("value", [5.0, 1e4, 1e25, 3e38])
def test_a_gradient_much_larger_than_our_own_is_refused_and_ours_stays(value):
    async def scenario() -> tuple[int, str]:
        answer = heir.offer(gift(value))
        await let_it_arrive()
        return heir.settle(), refusal(await answer)

    heir = Heir()
    added, why = asyncio.run(scenario())
    assert added == 0
    assert "where ours have" in why
    assert heir.accumulator.samples == OWN_SAMPLES
    assert heir.accumulator.own_mean()[0].tolist() == [1.0] * 100  # type: ignore[index]


def test_who_has_made_more_local_steps_may_have_moved_further():
    async def scenario() -> str:
        answer = heir.offer(gift(20.0, samples=16 * OWN_SAMPLES))
        await let_it_arrive()
        heir.settle()
        return refusal(await answer)

    heir = Heir()
    heir.accumulator.grows = True
    assert asyncio.run(scenario()) == ""


def test_what_was_taken_over_does_not_make_room_for_more():
    async def scenario() -> list[str]:
        answers = []
        for leaver, value in zip(LEAVERS, (2.9, 8.0), strict=False):
            answers.append(heir.offer(gift(value, samples=256), leaver))
            await let_it_arrive()
            heir.settle()
        return [refusal(await answer) for answer in answers]

    heir = Heir()
    first, second = asyncio.run(scenario())
    assert (first, bool(second)) == ("", True)


def test_an_offer_waits_for_a_gradient_to_judge_it_by():
    async def scenario() -> tuple[int, int, str]:
        answer = heir.offer(gift(1.0))
        await let_it_arrive()
        before = heir.settle()
        heir.compute(OWN_SAMPLES)
        return before, heir.settle(), refusal(await answer)

    heir = Heir(samples=0)
    assert asyncio.run(scenario()) == (0, OWN_SAMPLES, "")


def test_a_desk_that_closes_refuses_what_waits():
    async def scenario() -> str:
        answer = heir.offer(gift(1.0))
        await let_it_arrive()
        heir.desk.close()
        return refusal(await answer)

    heir = Heir()
    assert "leaving" in asyncio.run(scenario())


def test_empty_messages_are_refused():
    async def scenario() -> str:
        return refusal(await heir.offer(gift(1.0, more=[b""])))

    heir = Heir()
    assert "an empty message" in asyncio.run(scenario())


def test_few_offers_arrive_at_a_time_and_one_of_each():
    async def scenario() -> list[str]:
        arriving = [heir.offer(endless(), leaver) for leaver in LEAVERS[: WAITING_OFFERS - 1]]
        await let_it_arrive()
        again = await heir.offer(gift(1.0), LEAVERS[0])
        arriving.append(heir.offer(endless(), LEAVERS[WAITING_OFFERS]))
        await let_it_arrive()
        too_many = await heir.offer(gift(1.0), LEAVERS[WAITING_OFFERS + 1])
        for offer in arriving:
            offer.cancel()
        await asyncio.wait(arriving)
        answer = heir.offer(gift(1.0), LEAVERS[0])
        await let_it_arrive()
        heir.settle()
        return [refusal(again), refusal(too_many), refusal(await answer)]

    heir = Heir()
    again, too_many, later = asyncio.run(scenario())
    assert "others already" in again
    assert "others already" in too_many
    assert later == ""
