"""An all-reduce: when a sender dies in the middle, when one sends what cannot be, and when nothing goes on."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import pytest
import torch
from hivemind.averaging.partition import AllreduceException, BannedException
from hivemind.p2p import PeerID, ServicerBase

from swarm.allreduce import GuardedReducer, SteadfastAllReduce
from swarm.guard import PartGuard, RoundLimits
from swarm.rounds import RoundKind

OWN = torch.full((4,), 3.0)


class Reducer(GuardedReducer):
    """Reduces one part, of which its owner (the first sender) has the values `OWN`."""

    def __init__(self, senders: int, most: float = 1.0, robust: bool = False):
        self.offences: list[tuple[int, str]] = []
        guard = PartGuard(RoundLimits(RoundKind.GRADIENTS), own_size=3.0, own_weight=1.0)
        super().__init__([OWN], guard, 0, [most] * senders, lambda *what: self.offences.append(what), robust)

    def send(self, sender: int, values: torch.Tensor, weight: float = 1.0) -> asyncio.Future[torch.Tensor]:
        return asyncio.ensure_future(self.accumulate_part(sender, 0, values, weight))


async def let_them_arrive() -> None:
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def test_a_sender_that_dies_after_sending_does_not_take_the_part_from_the_others():
    async def scenario() -> list[torch.Tensor]:
        reducer = Reducer(senders=3)
        first, dying = reducer.send(0, OWN), reducer.send(1, torch.full((4,), 2.0))
        await let_them_arrive()  # both have sent their part and wait for the third
        dying.cancel()
        reducer.on_sender_failed(1)
        return await asyncio.wait_for(
            asyncio.gather(first, reducer.send(2, torch.full((4,), 4.0))), timeout=5
        )

    first, last = asyncio.run(scenario())
    assert first.tolist() == last.tolist() == [3.0] * 4  # what it had sent counts


def test_a_sender_that_dies_before_sending_is_left_out():
    async def scenario() -> torch.Tensor:
        reducer = Reducer(senders=2)
        first = reducer.send(0, OWN)
        await let_them_arrive()
        reducer.on_sender_failed(1)
        return await asyncio.wait_for(first, timeout=5)

    assert asyncio.run(scenario()).tolist() == OWN.tolist()


@pytest.mark.parametrize("robust", [False, True])
def test_a_part_to_which_nobody_brings_anything_is_zero(robust):
    async def scenario() -> torch.Tensor:
        reducer = Reducer(senders=2, robust=robust)
        first = reducer.send(0, torch.zeros(4), weight=0.0)
        await let_them_arrive()
        reducer.on_sender_failed(1)
        return await asyncio.wait_for(first, timeout=5)

    assert asyncio.run(scenario()).tolist() == [0.0] * 4


@pytest.mark.parametrize(
    ("values", "weight"),
    [
        (torch.full((4,), math.nan), 1.0),
        (torch.full((4,), math.inf), 1.0),
        (torch.full((4,), 3000.0), 1.0),
        (torch.ones(3), 1.0),
        (torch.ones(1), 1.0),  # would be broadcast
        (torch.ones(4, dtype=torch.int64), 1.0),
        (OWN, 1e9),
        (OWN, -1.0),
        (OWN, math.nan),
        (OWN, math.inf),
    ],
)
def test_what_cannot_be_a_part_is_refused_and_its_sender_named(values, weight):
    async def scenario() -> tuple[torch.Tensor, Reducer]:
        reducer = Reducer(senders=3)
        first = reducer.send(0, OWN)
        await let_them_arrive()
        with pytest.raises(BannedException):
            await reducer.send(1, values, weight)
        reducer.on_sender_failed(1)  # as hivemind does with whom we ban
        return (await asyncio.wait_for(asyncio.gather(first, reducer.send(2, OWN)), timeout=5))[0], reducer

    average, reducer = asyncio.run(scenario())
    assert average.tolist() == OWN.tolist()
    assert [sender for sender, _why in reducer.offences] == [1]


def test_honest_parts_of_few_samples_may_be_noisier():
    guard = PartGuard(RoundLimits(RoundKind.GRADIENTS), own_size=1.0, own_weight=256.0)
    noisy = 20 * torch.ones(4)
    assert guard.why_refused(noisy, torch.ones(4), weight=256.0, most=256.0)
    assert guard.why_refused(noisy, torch.ones(4), weight=16.0, most=256.0) is None


def test_who_has_made_more_local_steps_may_have_moved_further():
    limits = RoundLimits(RoundKind.GRADIENTS, {"fast": 512.0}, grows=True)
    slow = PartGuard(limits, own_size=1.0, own_weight=16.0)
    assert slow.why_refused(32 * torch.ones(4), torch.ones(4), weight=512.0, most=512.0) is None
    assert slow.why_refused(32 * torch.ones(4), torch.ones(4), weight=16.0, most=512.0)
    assert slow.why_result_refused(30 * torch.ones(4), torch.ones(4)) is None
    assert slow.why_result_refused(1000 * torch.ones(4), torch.ones(4))


def test_who_brings_nothing_judges_by_what_is_usual():
    nothing = torch.zeros(4)
    by_usual = PartGuard(RoundLimits(RoundKind.GRADIENTS, usual_size=1.0), own_size=0.0, own_weight=0.0)
    assert by_usual.why_refused(torch.ones(4), nothing, 8.0, 8.0) is None
    assert by_usual.why_refused(1000 * torch.ones(4), nothing, 8.0, 8.0)
    by_nothing = PartGuard(RoundLimits(RoundKind.GRADIENTS), own_size=0.0, own_weight=0.0)
    assert by_nothing.why_refused(1000 * torch.ones(4), nothing, 8.0, 8.0) is None
    assert by_nothing.why_refused(torch.full((4,), math.nan), nothing, 8.0, 8.0)


def test_parameters_must_be_near_our_own():
    guard = PartGuard(RoundLimits(RoundKind.STATE), own_size=3.0, own_weight=1.0)
    assert guard.why_refused(OWN + 0.1, OWN, 1.0, 1.0) is None
    assert guard.why_refused(-OWN, OWN, 1.0, 1.0)


def test_a_reducers_answer_is_held_to_the_same_bounds():
    guard = PartGuard(RoundLimits(RoundKind.GRADIENTS), own_size=3.0, own_weight=1.0)
    assert guard.why_result_refused(torch.full((4,), -1.0), OWN) is None
    assert guard.why_result_refused(torch.full((4,), 5000.0), OWN)
    assert guard.why_result_refused(torch.full((4,), math.nan), OWN)
    assert guard.why_result_refused(torch.zeros(3), OWN)


def test_a_minority_cannot_steer_a_robust_average():
    async def scenario() -> torch.Tensor:
        reducer = Reducer(senders=4, robust=True)
        parts = [OWN, OWN + 0.1, OWN - 0.1, -OWN]
        return (await asyncio.wait_for(asyncio.gather(*map(reducer.send, range(4), parts)), timeout=5))[0]

    assert torch.allclose(asyncio.run(scenario()), OWN, atol=0.1)


class Stuck(SteadfastAllReduce):
    """With a member that is neither silent nor gone, and sends nothing."""

    async def _communicate_with_peer(self, peer_id: PeerID) -> None:
        await asyncio.Event().wait()


def test_an_exchange_in_which_nothing_goes_on_ends_and_says_what_is_missing():
    async def scenario() -> None:
        ourselves, other = PeerID(b"we"), PeerID(b"other")
        runner = Stuck(
            limits=RoundLimits(RoundKind.GRADIENTS),
            parts_on_their_way=4,
            p2p=SimpleNamespace(peer_id=ourselves),
            servicer_type=ServicerBase,
            prefix="run",
            group_id=b"group",
            tensors=[OWN.clone()],
            ordered_peer_ids=[ourselves, other],
            peer_fractions=(0.5, 0.5),
            weight=1.0,
            sender_timeout=0.1,
            reducer_timeout=0.2,
        )
        async for _nothing in runner:
            pass

    with pytest.raises(AllreduceException, match=r"nothing came for .*: we sent 0 of 1 .*, \S+ sent 0 of 1 "):
        asyncio.run(asyncio.wait_for(scenario(), timeout=10))
