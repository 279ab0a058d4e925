"""How the parts of an all-reduce travel: how large they are, and how many of them at a time."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hivemind.compression import NoCompression
from hivemind.p2p import PeerID, ServicerBase

from swarm.allreduce import (
    PART_BYTES,
    PARTS_ON_THEIR_WAY,
    SteadfastAllReduce,
    part_bytes,
    parts_on_their_way,
)
from swarm.guard import RoundLimits
from swarm.rounds import RoundKind

VALUES = 6400
PART = 4 * 100
WAY = 4
PEERS = [PeerID(bytes([index]) * 8) for index in range(3)]


class Servicer(ServicerBase):
    """hivemind wants a kind of service; parts are handed over directly here."""


class Member(SteadfastAllReduce):
    """A member of a group in one process; `most` counts the parts that were on their way to one reducer at a time."""

    def __init__(self, group: list[Member], fractions: Sequence[float], parts: int = PART):
        index = len(group)
        self._group, self.values, self.most = group, [torch.full((VALUES,), float(index))], 0
        super().__init__(
            limits=RoundLimits(RoundKind.GRADIENTS, most=math.inf),
            parts_on_their_way=WAY,
            p2p=SimpleNamespace(peer_id=PEERS[index]),
            servicer_type=Servicer,
            prefix=None,
            tensors=self.values,
            group_id=b"group",
            ordered_peer_ids=PEERS[: len(fractions)],
            peer_fractions=tuple(fractions),
            compression=NoCompression(),
            part_size_bytes=parts,
            sender_timeout=2.0,
            reducer_timeout=60.0,
        )
        group.append(self)

    def _get_peer_stub(self, peer: PeerID) -> Any:
        return SimpleNamespace(rpc_aggregate_part=lambda parts: self._hand_over(peer, parts))

    async def _hand_over(self, peer: PeerID, parts: AsyncIterator[Any]) -> AsyncIterator[Any]:
        reducer = next(member for member in self._group if member.peer_id == peer)
        on_their_way: asyncio.Queue[Any] = asyncio.Queue()
        returned, closed = 0, False

        async def send() -> None:
            sent = 0
            async for part in parts:
                if closed:
                    raise ConnectionError("the stream is closed")
                sent += 1
                self.most = max(self.most, sent - returned)
                on_their_way.put_nowait(part)
            on_their_way.put_nowait(None)

        async def arriving() -> AsyncIterator[Any]:
            while (part := await on_their_way.get()) is not None:
                yield part

        async def averages() -> AsyncIterator[Any]:
            nonlocal returned, closed
            context = SimpleNamespace(remote_id=self.peer_id)
            async for average in reducer.rpc_aggregate_part(arriving(), context):  # type: ignore[arg-type]
                returned += 1
                yield average
                if returned == reducer.tensor_part_reducer.num_parts:
                    return  # as whoever has all averages closes the stream
            closed = True
            await sending

        sending = asyncio.create_task(send())
        return averages()

    async def average(self) -> list[float]:
        """Take part; the values that come out."""
        assert [update async for update in self] == []  # it is in place
        return [value.item() for tensor in self.values for value in tensor]


class Quitter(Member):
    """Closes each stream when as many parts have come as come without an answer."""

    async def rpc_aggregate_part(self, stream: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        for _part in range(WAY):
            await anext(stream)
        return
        yield  # hivemind wants a stream


def averaged(
    fractions: Sequence[float], first: type[Member] = Member
) -> tuple[list[Member], list[set[float]]]:
    """All members of a group after a round, and the values that each of them has then.

    :param first: kind of the first member
    """

    async def scenario() -> tuple[list[Member], list[set[float]]]:
        group: list[Member] = []
        for index in range(len(fractions)):
            (Member if index else first)(group, fractions)
        rounds = asyncio.gather(*(member.average() for member in group))
        return group, [set(values) for values in await asyncio.wait_for(rounds, timeout=30)]

    return asyncio.run(scenario())


def test_few_parts_are_on_their_way_at_a_time_and_all_arrive():
    members, values = averaged([1 / 3, 1 / 3, 1 / 3])
    assert values == [{1.0}] * 3
    assert [member.most for member in members] == [WAY] * 3


def test_who_reduces_nothing_sends_everything_before_anything_comes_back():
    members, values = averaged([0.5, 0.5, 0.0])
    assert values == [{1.0}] * 3
    assert members[2].most > WAY


def test_a_reducer_that_closes_the_stream_is_given_up_soon():
    members, values = averaged([1 / 3, 1 / 3, 1 / 3], first=Quitter)
    assert [1.0 in found for found in values] == [True] * 3  # what the other two have reduced
    assert [member.tensor_part_container.failed_size > 0 for member in members] == [False, True, True]


def test_parts_are_smaller_on_slow_links():
    smallest, largest = PART_BYTES
    sizes = [part_bytes([megabits, 1000.0]) for megabits in (1.0, 30.0, 100.0, 1000.0)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (smallest, largest)


@pytest.mark.parametrize("unknown", [[], [None, None], [None, 0.0]])
def test_parts_are_large_where_no_bandwidth_is_known(unknown):
    assert part_bytes(unknown) == PART_BYTES[1]


def test_more_parts_are_on_their_way_where_the_link_carries_more():
    counts = [parts_on_their_way([megabits, 1000.0]) for megabits in (1.0, 30.0, 100.0, 1000.0)]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == PARTS_ON_THEIR_WAY
    assert parts_on_their_way([None]) == PARTS_ON_THEIR_WAY[1]


def test_all_members_choose_the_same_size():
    assert part_bytes([100.0, None, 37.0]) == part_bytes([37.0, 100.0, None])
