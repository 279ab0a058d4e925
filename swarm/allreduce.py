"""hivemind's all-reduce, made to survive the death of a member in the middle of it, and to doubt what members send.

Two things in hivemind 1.1.12 make everyone wait for the whole `allreduce_timeout` after one death:

- All who send to a reducer await one future per part. When one of them dies, its task is cancelled, and cancelling a
  task cancels the future that it awaits: the others never get that part.
- Opening a stream to a reducer has no time limit.

And it adds whatever it is sent, and takes over whatever it gets back.

It also sends all that it has as fast as it can, in parts of one size for every link. On a slow link some streams then
run ahead of others, whose reducers end late and leave links idle; so here few parts are on their way to a reducer at a
time, and they are smaller where the link is slow (`python -m benchmarks.swarm_links` for what that saves). What comes
back goes into the tensors at once, and not when all of a tensor is there.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any

import torch
from hivemind.averaging.allreduce import AllReduceRunner
from hivemind.averaging.partition import AllreduceException, BannedException, TensorPartReducer
from hivemind.p2p import P2PContext, PeerID, StubBase
from hivemind.proto import averaging_pb2

from swarm.closing import lingering, only
from swarm.flow_control import wait_at_most
from swarm.guard import PartGuard, RoundLimits, size_of
from swarm.robust import CentredClipping

logger = logging.getLogger(__name__)

# what the slowest link of a group carries in this time is a part: shorter ones cost processor time, longer ones wait
PART_SECONDS = 0.01
PART_BYTES = (2**16, 2**19)
# what it carries in this time may be on its way to each reducer, or more would wait for the way there and back
WAY_SECONDS = 0.1
# a reducer reads two parts ahead of the one it reduces: with fewer than four it would hear nothing, and think us gone
PARTS_ON_THEIR_WAY = (4, 16)
# only by sending do we notice that a reducer has closed the stream
ROOM_SECONDS = 2.0

# hivemind keeps what is registered until all of a tensor is there
_NOTHING = torch.empty(0)

# (index of the sender, why)
OnOffence = Callable[[int, str], None]


def part_bytes(bandwidths: Iterable[float | None]) -> int:
    """Size of the parts that a group exchanges, by its members' bandwidths in Mbit/s; None is not known.

    >>> part_bytes([100.0, 75.0, None])
    93750
    """
    smallest, largest = PART_BYTES
    slowest = _slowest(bandwidths)
    return largest if slowest is None else round(min(max(slowest * PART_SECONDS, smallest), largest))


def parts_on_their_way(bandwidths: Sequence[float | None]) -> int:
    """How many of them may be on their way to one reducer.

    >>> parts_on_their_way([100.0, 75.0, None])
    10
    """
    fewest, most = PARTS_ON_THEIR_WAY
    slowest = _slowest(bandwidths)
    if slowest is None:
        return most
    return min(max(round(slowest * WAY_SECONDS / part_bytes(bandwidths)), fewest), most)


def _slowest(bandwidths: Iterable[float | None]) -> float | None:
    """In bytes per second."""
    return min((bandwidth * 1e6 / 8 for bandwidth in bandwidths if bandwidth), default=None)


class GuardedReducer(TensorPartReducer):
    """A reducer that refuses parts which cannot be, and finishes for the others when one who waits is cancelled.

    :param own_parts: our values of the parts that we reduce
    :param own_index: of us among the senders, whose values were checked before the round; None if we send nothing
    :param most: weight that each sender may have
    :param robust: clip instead of adding up
    """

    accumulator: Any
    denominator: float

    def __init__(
        self,
        own_parts: Sequence[torch.Tensor],
        guard: PartGuard,
        own_index: int | None,
        most: Sequence[float],
        on_offence: OnOffence,
        robust: bool = False,
    ):
        self._own_parts, self._guard, self._own_index = own_parts, guard, own_index
        self._most, self._on_offence, self._robust = most, on_offence, robust
        super().__init__(tuple(part.shape for part in own_parts), len(most))

    def reset_accumulators(self) -> None:
        """Begin the next part."""
        super().reset_accumulators()
        if self._robust and not self.finished.is_set():
            self.accumulator = CentredClipping()

    async def accumulate_part(
        self, sender_index: int, part_index: int, tensor_part: torch.Tensor, weight: float = 1.0
    ) -> torch.Tensor:
        """Add one sender's part, wait for the other senders, and return the average.

        :raises BannedException: the part was refused; nothing more of this sender is taken in this round
        """
        if sender_index != self._own_index:
            if not 0 <= part_index < self.num_parts:
                why: str | None = "more parts than we reduce"
            else:
                own = self._own_parts[part_index]
                why = self._guard.why_refused(tensor_part, own, weight, self._most[sender_index])
            if why is not None:
                self._on_offence(sender_index, f"sent {why}")
                raise BannedException(why)
        return await asyncio.shield(super().accumulate_part(sender_index, part_index, tensor_part, weight))

    def check_current_part_finished(self) -> None:
        """Finish the part if all who still send have sent it; of values without any weight the average is zero."""
        if self.current_part_accumulated_from == self.num_current_senders and not self.denominator:
            self.accumulator, self.denominator = torch.zeros(self.part_shapes[self.current_part_index]), 1.0
        super().check_current_part_finished()


class SteadfastAllReduce(AllReduceRunner):
    """One all-reduce in one group, in place; waits for a silent member `sender_timeout` at most, whatever it is silent
    about. Iterating over it yields nothing, and ends when everything is in the tensors. Raises `AllreduceException`,
    with what every member has sent and returned, when nothing at all goes on for longer than members may be silent.

    :param limits: what others may send and return
    :param parts_on_their_way: to each reducer at a time
    :param robust: whether our share is reduced by centred clipping
    """

    tensor_part_reducer: TensorPartReducer

    def __init__(self, *, limits: RoundLimits, parts_on_their_way: int, robust: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.offenders: dict[PeerID, str] = {}
        container = self.tensor_part_container
        # every part stays with the container until the round is over
        self._parts = [[part for part, _info in parts] for parts in container._input_parts_by_peer]
        own_size = size_of([part for parts in self._parts for part in parts])
        self._guard = PartGuard(limits, own_size, self.weight)
        # the one that ours replaces would complain that nothing came
        self.tensor_part_reducer.finished.set()
        self.tensor_part_reducer = GuardedReducer(
            self.parts_for_local_averaging,
            self._guard,
            self.sender_peer_ids.index(self.peer_id) if self.peer_id in self.sender_peer_ids else None,
            [limits.weights.get(str(peer), limits.most) for peer in self.sender_peer_ids],
            lambda index, why: self._remember(self.sender_peer_ids[index], why),
            robust,
        )
        self._room = [asyncio.Semaphore(parts_on_their_way) for _peer in self.ordered_peer_ids]
        # without any part: a sender may be silent, and a reducer that waits for it longer
        self._patience = self.sender_timeout + self.reducer_timeout
        self._last_progress = time.monotonic()
        self._register = container.register_processed_part
        container.register_processed_part = self._take_over_if_it_fits
        container.iterate_output_tensors = self._until_all_parts_came

    def _take_over_if_it_fits(self, peer_index: int, part_index: int, part: torch.Tensor) -> None:
        """Add what a reducer returned, the difference to our own values, unless it cannot be one."""
        container, reducer = self.tensor_part_container, self.ordered_peer_ids[peer_index]
        # hivemind calls this for the parts of a reducer that failed, too, with no change
        fits = part_index < len(self._parts[peer_index])
        why = (
            self._guard.why_result_refused(part, self._parts[peer_index][part_index])
            if fits and reducer != self.peer_id
            else None
        )
        if why is not None:
            self._remember(reducer, f"returned {why}")
            container.failed_size += self._parts[peer_index][part_index].numel()
        elif fits:
            self._parts[peer_index][part_index].add_(part)
        self._register(peer_index, part_index, _NOTHING)
        self._last_progress = time.monotonic()
        self._room[peer_index].release()

    async def _until_all_parts_came(self) -> AsyncIterator[torch.Tensor]:
        container = self.tensor_part_container
        for peer_index, expected in enumerate(container.num_parts_by_peer):
            available = container._output_part_available[peer_index]
            while container._outputs_registered_by_peer[peer_index] < expected:
                available.clear()
                await wait_at_most(self._patience, available.wait())
                if container.finished.is_set():
                    raise AllreduceException("the all-reduce was ended before all parts had come")
                if time.monotonic() - self._last_progress > self._patience:
                    raise AllreduceException(f"nothing came for {self._patience:.0f} s: {self._progress()}")
        return
        yield  # hivemind wants a stream

    def _progress(self) -> str:
        """Parts that came from every member, and those that came back from it, of how many."""
        container, reducer = self.tensor_part_container, self.tensor_part_reducer
        sent = dict(zip(self.sender_peer_ids, reducer.num_parts_received, strict=True))
        returned = zip(container._outputs_registered_by_peer, container.num_parts_by_peer, strict=True)
        return ", ".join(
            f"{'we' if peer == self.peer_id else peer} sent {sent.get(peer, 0)} of {reducer.num_parts} and "
            f"returned {came} of {expected}"
            for peer, (came, expected) in zip(self.ordered_peer_ids, returned, strict=True)
        )

    async def _generate_input_for_peer(self, peer_index: int) -> AsyncIterator[averaging_pb2.AveragingData]:
        """Our values for a reducer; when enough are on their way, the next when one has come back, or after a while."""
        async for part in super()._generate_input_for_peer(peer_index):
            # who reduces nothing is sent nothing back before all of its parts have come
            if self.should_delay_results(self.peer_id):
                self._last_progress = time.monotonic()
            else:
                await wait_at_most(ROOM_SECONDS, self._room[peer_index].acquire())
            yield part

    def _remember(self, peer: PeerID, why: str) -> None:
        if peer not in self.offenders:
            logger.warning("%s %s", peer, why)
            self.offenders[peer] = why

    async def rpc_aggregate_part(
        self, stream: AsyncIterator[averaging_pb2.AveragingData], context: P2PContext
    ) -> AsyncIterator[averaging_pb2.AveragingData]:
        """Average what a sender sends; if all of it could be, leave it to the sender to close the stream."""
        averages = super().rpc_aggregate_part(stream, context)
        async for message in lingering(self.tensor_part_reducer.num_parts, averages):
            yield message

    def _get_peer_stub(self, peer: PeerID) -> Any:
        parts = self.tensor_part_container.num_parts_by_peer[self.ordered_peer_ids.index(peer)]
        return _PromptStub(super()._get_peer_stub(peer), self.sender_timeout, parts)


class _PromptStub:
    """Opens a stream within a time limit, and closes it as soon as all parts have come back."""

    def __init__(self, stub: StubBase, timeout: float | None, parts: int):
        self._stub, self._timeout, self._parts = stub, timeout, parts

    async def rpc_aggregate_part(
        self, inputs: AsyncIterator[averaging_pb2.AveragingData]
    ) -> AsyncIterator[averaging_pb2.AveragingData]:
        stream = await asyncio.wait_for(self._stub.rpc_aggregate_part(inputs), self._timeout)
        return only(self._parts, stream)
