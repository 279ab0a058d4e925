"""The one adapter around hivemind's averaging: rounds keyed by global step, counted, and state that can be verified.

hivemind does the work (matchmaking, butterfly all-reduce, compression). This subclass changes what it trusts:

- A group is keyed by kind, global step and branch (hivemind's "group bits"), so peers at different steps never
  average, nor two parts of a swarm that trained apart.
- The size of the group is known from leases, so matchmaking ends when everyone is there instead of timing out.
- A round reports what was really received, not only how many peers were grouped.
- State is downloaded from donors that the caller chose (`swarm/state_sharing.py`).
- Only peers that the run admits may call, be followed, or be averaged with; what they send and return is held to
  bounds, and whoever breaks them is told of in the result.

Of what hivemind 1.1.12 keeps private, the averager's and its matchmaking's is used here and in the base class, the
all-reduce's in `swarm/allreduce.py` only. The averager is a forked process: create it in the main thread, before other
threads; it dies with its parent. One round at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import math
import multiprocessing
import signal
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, AsyncIterator  # noqa: UP035  hivemind recognises streams by typing's AsyncIterator only

import hivemind
import torch
from hivemind.averaging.allreduce import AveragingMode
from hivemind.averaging.group_info import GroupInfo
from hivemind.averaging.key_manager import GroupKeyManager
from hivemind.averaging.matchmaking import MatchmakingException
from hivemind.compression import NoCompression
from hivemind.p2p import P2PContext, PeerID
from hivemind.proto import averaging_pb2
from hivemind.utils.asyncio import achain, anext, as_aiter

from model.host_allocator import keep_freed_memory
from swarm.allreduce import SteadfastAllReduce, part_bytes, parts_on_their_way
from swarm.closing import until_receiver_closes
from swarm.codecs import SMALL_TENSOR_VALUES, compression_for
from swarm.dht import TiedDHT
from swarm.gate import Gate
from swarm.guard import RoundLimits, size_of
from swarm.lifeline import die_with_parent, ignore_polite_signals
from swarm.low_rank import LowRankGradients
from swarm.rounds import RoundFailed, RoundKind, RoundResult
from swarm.snapshot import BRANCH_HEX_DIGITS
from swarm.spec import AveragingSpec
from swarm.state_sharing import StateSharing, StateSource
from swarm.uniform_8bit import decode_with_ours, warm_up
from swarm.whole_messages import WholeMessages

logger = logging.getLogger(__name__)

BRANCH_KEY_BITS = 32
# Mbit/s; above this the processor limits an exchange, shares should be equal, and nobody claims more
FAST_ENOUGH_MEGABITS = 1000.0
# a leader may have heard of members that we have not: so many times those that we know of, and so many more
MAX_GROUP_RATIO, MAX_GROUP_SURPLUS = 2, 16
# how long we follow nobody who has led us into a group that cannot be
DISTRUST_SECONDS = 60.0
# how much the size of the last average counts in what is usual
USUAL_SMOOTHING = 0.3


@dataclass(frozen=True)
class _Received:
    """What came of an exchange: shares of what should have come, 0 to 1, who was silent, and who broke bounds."""

    results: float = 0.0
    inputs: float = 0.0
    silent: tuple[str, ...] = ()
    offenders: Mapping[str, str] = field(default_factory=dict)

    def then(self, later: _Received) -> _Received:
        """Of two exchanges in a row, of which the second brings the result."""
        return _Received(
            later.results,
            min(self.inputs, later.inputs),
            self.silent + later.silent,
            {**self.offenders, **later.offenders},
        )


class SwarmAverager(StateSharing):
    """Averages one set of buffers in rounds, and hands out and fetches state.

    >>> averager = SwarmAverager(buffers, dht, prefix=spec.run_id, spec=spec.averaging)      # doctest: +SKIP
    >>> averager.run_round(                                                                   # doctest: +SKIP
    ...     RoundKind.GRADIENTS, step=7, branch="", group_size=3, weight=96.0, samples=96, weights={}
    ... )

    `bandwidth`: of our link, in Mbit/s; None while it is not known.

    :param buffers: fp32 CPU tensors of fixed shapes; moved to shared memory; filled by the caller before a round
    :param state_source: called in this process, in a thread, whenever a newcomer asks for state
    """

    _inner_pipe: Any

    def __init__(
        self,
        buffers: Sequence[torch.Tensor],
        dht: TiedDHT,
        *,
        prefix: str,
        spec: AveragingSpec,
        client_mode: bool = False,
        state_source: StateSource | None = None,
    ):
        self._gate = Gate(dht.admission, dht)
        self._codecs = {
            RoundKind.GRADIENTS: compression_for(spec.gradient_compression),
            RoundKind.STATE: compression_for(spec.state_compression),
        }
        self._spec = spec
        self._low_rank = LowRankGradients(spec.rank) if spec.gradient_compression == "low_rank" else None
        self._state_source, self._copy_lock = state_source, multiprocessing.Lock()
        self._received = _Received()
        self._distrusted: dict[PeerID, float] = {}
        self._limits = RoundLimits(RoundKind.GRADIENTS)
        self._parts_on_their_way = parts_on_their_way([])
        self._usual_size: dict[RoundKind, float] = {}
        handler = signal.getsignal(signal.SIGINT)
        try:
            super().__init__(
                buffers,
                dht,
                start=True,
                prefix=prefix,
                min_matchmaking_time=spec.matchmaking_time,
                request_timeout=spec.request_timeout,
                next_chunk_timeout=spec.next_chunk_timeout,
                allreduce_timeout=spec.allreduce_timeout,
                allow_state_sharing=False,  # would announce us in an unsigned record
                client_mode=client_mode,
            )
        finally:
            # hivemind switches Ctrl-C off in the parent and leaves it so
            signal.signal(signal.SIGINT, handler)

    def run_round(
        self,
        kind: RoundKind,
        *,
        step: int,
        branch: str,
        group_size: int,
        weight: float,
        samples: int,
        weights: Mapping[str, float],
        most: float = math.inf,
        grows: bool = False,
    ) -> RoundResult:
        """Average the buffers in place with the other peers that are at `step` of `branch`; blocks until done.

        :param group_size: how many peers take part, ourselves included; the round starts as soon as they are there,
            or with those who came when the matchmaking time is over
        :param weight: weight of our values in the average
        :param weights: most that those of other peers may weigh, by peer id; `most`: of peers that are not named
        :param grows: whether values are larger the more they weigh
        :raises RoundFailed: nobody came in time, or the exchange broke off
        """
        wait = self._spec.matchmaking_time + 2 * self._spec.request_timeout
        self._outer_pipe.send(
            (
                "_prepare_round",
                [],
                {
                    "kind": kind,
                    "bits": _group_bits(kind, step, branch),
                    "size": group_size,
                    "weights": dict(weights),
                    "most": most,
                    "grows": grows,
                    "bandwidth": self.bandwidth,
                },
            )
        )
        control = super().step(
            gather=samples,
            weight=weight,
            timeout=wait,
            allow_retries=False,
            wait=False,
            require_trigger=False,
        )
        try:
            # longer than the averager itself may take: it must not write into buffers that are filled anew
            result = control.result(wait + self._spec.allreduce_timeout + self._spec.request_timeout)
        except BaseException as error:
            if not control.done():
                control.cancel()
            if not isinstance(error, Exception):
                raise
            raise RoundFailed(" ".join(str(error).split()) or type(error).__name__) from None
        gathered, round_id, received, seconds = result
        return RoundResult(
            round_id,
            {str(peer): count for peer, count in gathered.items() if isinstance(count, int)},
            received.results,
            received.inputs,
            frozenset(received.silent),
            seconds,
            received.offenders,
        )

    def terminate(self) -> None:
        """What hivemind does with a child that does not end when asked; it ignores the polite signal."""
        self.kill()

    # Everything below runs in the averager process.

    def run(self) -> None:
        die_with_parent(self._parent_pid)
        ignore_polite_signals()
        self._inner_pipe = WholeMessages(self._inner_pipe)
        keep_freed_memory()  # every part has tensors of its own, for a moment
        decode_with_ours()
        if self._will_use_8_bits():
            threading.Thread(target=warm_up, daemon=True).start()
        self._newcomers = Counter()
        self._no_round = asyncio.Event()
        self._no_round.set()
        super().run()

    def _will_use_8_bits(self) -> bool:
        in_codes = self._spec.gradient_compression in ("8bit", "low_rank")
        return in_codes and any(tensor.numel() >= SMALL_TENSOR_VALUES for tensor in self._averaged_tensors)

    async def _prepare_round(
        self,
        kind: RoundKind,
        bits: str,
        size: int,
        weights: dict[str, float],
        most: float,
        grows: bool,
        bandwidth: float | None,
    ) -> None:
        """Key the next matchmaking by `bits`, and let it end when `size` peers are there."""
        self.bandwidth = bandwidth
        self._limits = RoundLimits(kind, weights, most, self._usual_size.get(kind), grows=grows)
        self._matchmaking.group_key_manager = _FixedKey(
            self.dht, self.prefix, bits, self._may_lead, self._judge_group
        )
        self._matchmaking.target_group_size = size
        self.allreduce_kwargs["compression"] = self._codecs[kind]
        self._received = _Received()

    async def _run_allreduce_inplace_(
        self,
        tensors: Sequence[torch.Tensor],
        group_info: GroupInfo,
        group_id: bytes | None = None,
        **kwargs: Any,
    ) -> None:
        if self._low_rank is None or self._limits.kind is not RoundKind.GRADIENTS:
            await self._exchange(tensors, group_info, group_info.group_id, **kwargs)
            self._remember_size(self._limits.kind, size_of(tensors))
            return
        loop, key = asyncio.get_running_loop(), self._matchmaking.group_key_manager.current_key
        kwargs["tensor_infos"] = None
        exact = {**kwargs, "compression": NoCompression()}
        factors = await loop.run_in_executor(None, self._low_rank.first, tensors, key)
        await self._exchange(factors, group_info, group_info.group_id, **exact)
        if self._received.results < 1.0:
            # who lacks a part of the first factors has other columns than everybody else
            raise MatchmakingException("the first factors did not all come back")
        first = self._received
        factors = await loop.run_in_executor(None, self._low_rank.second)
        await self._exchange(factors, group_info, _second_of(group_info.group_id), **kwargs)
        await loop.run_in_executor(None, self._low_rank.finish)
        self._received = first.then(self._received)

    async def _exchange(
        self, tensors: Sequence[torch.Tensor], group_info: GroupInfo, group_id: bytes, **kwargs: Any
    ) -> None:
        """Average some tensors in place with the group."""
        runner = SteadfastAllReduce(
            limits=self._limits,
            parts_on_their_way=self._parts_on_their_way,
            robust=self._spec.aggregation == "centred_clipping" and self._limits.kind is RoundKind.GRADIENTS,
            p2p=self._p2p,
            servicer_type=type(self),
            prefix=self.prefix,
            tensors=tensors,
            group_id=group_id,
            ordered_peer_ids=group_info.peer_ids,
            **kwargs,
        )
        self._running_groups[runner.group_id].set_result(runner)
        async for _nothing in runner:
            pass
        container, reducer = runner.tensor_part_container, runner.tensor_part_reducer
        expected = reducer.num_parts * reducer.num_senders
        self._received = _Received(
            1.0 - container.failed_size / container.total_size,
            sum(reducer.num_parts_received) / expected if expected else 1.0,
            tuple(str(peer) for peer in runner.banned_senders),
            {str(peer): why for peer, why in runner.offenders.items()},
        )

    @contextlib.contextmanager
    def _register_allreduce_group(self, group_info: GroupInfo) -> Iterator[None]:
        """Expect both exchanges of a round with this group."""
        second = _second_of(group_info.group_id)
        self._running_groups[second] = asyncio.Future()
        try:
            with super()._register_allreduce_group(group_info):
                yield
        finally:
            self._running_groups.pop(second).cancel()

    def _remember_size(self, kind: RoundKind, size: float) -> None:
        before = self._usual_size.get(kind, size)
        if math.isfinite(size):
            self._usual_size[kind] = before + USUAL_SMOOTHING * (size - before)

    async def _step(self, **kwargs: Any) -> None:
        """A whole round, from looking for a group on: the link is the round's until it is over."""
        self._no_round.clear()
        try:
            await super()._step(**kwargs)
        finally:
            self._no_round.set()
            # hivemind leaves a task behind for every follower that we have led, which waits for us to follow another
            self._matchmaking.was_accepted_to_group.set()
            self._matchmaking.was_accepted_to_group.clear()

    async def _may_lead(self, peer: PeerID) -> bool:
        """Whether we look at this peer when we look for a group."""
        return time.monotonic() >= self._distrusted.get(peer, 0.0) and await self._gate.admits(str(peer))

    def _judge_group(self, group_info: GroupInfo) -> None:
        """Raise `MatchmakingException` if a leader names members twice, or more than there can be.

        Parts of who is named twice would never come, and everybody would wait for them as long as a round may take.
        """
        members, leader = group_info.peer_ids, self._matchmaking.current_leader
        most = MAX_GROUP_RATIO * (self._matchmaking.target_group_size or 1) + MAX_GROUP_SURPLUS
        if len(set(members)) == len(members) <= most:
            return
        if leader is not None:
            now = time.monotonic()
            self._distrusted = {peer: until for peer, until in self._distrusted.items() if until > now}
            self._distrusted[leader] = now + DISTRUST_SECONDS
        raise MatchmakingException(f"{leader} led a group that cannot be, of {len(members)} members")

    async def _aggregate_with_group(self, group_info: GroupInfo, min_vector_size: int, **kwargs: Any) -> Any:
        started = time.monotonic()
        for peer, gathered in zip(group_info.peer_ids, group_info.gathered, strict=True):
            # the leader named them: neither it nor they need be who we would have chosen
            if peer != self.peer_id and not (
                await self._gate.admits(str(peer)) and self._is_plausible(gathered)
            ):
                raise MatchmakingException(f"the group has a member that may not average with us: {peer}")
        bandwidths = [self.serializer.loads(gathered)[0] for gathered in group_info.gathered]
        kwargs["part_size_bytes"] = part_bytes(bandwidths)
        self._parts_on_their_way = parts_on_their_way(bandwidths)
        gathered = await super()._aggregate_with_group(group_info, min_vector_size, **kwargs)
        round_id = group_info.group_id.hex()[:BRANCH_HEX_DIGITS]
        return gathered, round_id, self._received, time.monotonic() - started

    def _is_plausible(self, gathered: bytes) -> bool:
        """Whether what a peer tells of itself when a group is formed is what our own averagers tell."""
        try:
            bandwidth, mode, samples = self.serializer.loads(gathered)
            count = self.serializer.loads(samples)
        except Exception:  # msgpack raises whatever a malformed message makes its parser raise
            return False
        # no bandwidth: as fast as the fastest, says hivemind
        return (
            (
                bandwidth is None
                or (isinstance(bandwidth, int | float) and 0 <= bandwidth <= FAST_ENOUGH_MEGABITS)
            )
            and mode in (AveragingMode.NODE.value, AveragingMode.CLIENT.value)
            and isinstance(count, int)
            and 0 <= count < 2**53
        )

    async def rpc_join_group(
        self, request: averaging_pb2.JoinRequest, context: P2PContext
    ) -> AsyncIterator[averaging_pb2.MessageFromLeader]:
        """Accept a peer into the group that we lead, if the run admits it."""
        if not await self._gate.admits(str(context.remote_id)) or not self._is_plausible(request.gather):
            yield averaging_pb2.MessageFromLeader(code=averaging_pb2.PROTOCOL_VIOLATION)
            return
        async for message in super().rpc_join_group(request, context):
            yield message
        # the last word is that the group begins: a follower that misses it would be waited for by all others
        await until_receiver_closes()

    async def rpc_aggregate_part(
        self, stream: AsyncIterator[averaging_pb2.AveragingData], context: P2PContext
    ) -> AsyncIterator[averaging_pb2.AveragingData]:
        """Take a group member's part and send back the average; refuse soon if we are not in that group.

        hivemind would let a member that believes we are in its group wait until our next round.
        """
        request = await asyncio.wait_for(anext(stream), self._spec.next_chunk_timeout)
        if not await self._gate.admits(str(context.remote_id)):
            yield averaging_pb2.AveragingData(code=averaging_pb2.PROTOCOL_VIOLATION)
            return
        if request.group_id not in self._running_groups:
            # the leader's word that the group is there may come later than the first member's part
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._pending_groups_registered.wait(), self._spec.next_chunk_timeout)
        if request.group_id not in self._running_groups:
            yield averaging_pb2.AveragingData(code=averaging_pb2.BAD_GROUP_ID)
            return
        async for message in super().rpc_aggregate_part(achain(as_aiter(request), stream), context):
            yield message


class _FixedKey(GroupKeyManager):
    """Keeps the group's key, where hivemind would walk to another bucket after each round.

    :param may_lead: whether to follow a peer
    :param judge: raises if a group that has come about cannot be
    """

    def __init__(
        self,
        dht: hivemind.DHT,
        prefix: str,
        bits: str,
        may_lead: Callable[[PeerID], Awaitable[bool]],
        judge: Callable[[GroupInfo], None],
    ):
        super().__init__(dht, prefix, bits, None)
        self._may_lead, self._judge = may_lead, judge

    async def get_averagers(self, group_key: str, only_active: bool) -> list[tuple[PeerID, float]]:
        """Those who look for a group, and when they stop."""
        found = await super().get_averagers(group_key, only_active)
        return [(peer, until) for peer, until in found if peer == self.peer_id or await self._may_lead(peer)]

    async def update_key_on_group_assembled(self, group_info: GroupInfo) -> None:
        """Called by hivemind before anybody acts on a group."""
        self._judge(group_info)


def _second_of(group_id: bytes) -> bytes:
    """Names the second exchange of a round."""
    return group_id + b"2"


def _group_bits(kind: RoundKind, step: int, branch: str) -> str:
    """The key of a group, in the alphabet that hivemind allows."""
    digest = hashlib.sha256(branch.encode()).digest()
    return f"{int.from_bytes(digest[: BRANCH_KEY_BITS // 8], 'big'):0{BRANCH_KEY_BITS}b}{step:b}{int(kind):b}"
