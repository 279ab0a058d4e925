"""Hands the training state out and fetches it, beside averaging.

State comes from donors that the caller chose by signed records, of a known layout, and never from whoever announces
itself; hyperparameters do not travel. Several donors of the same step and branch each send a part, so that a newcomer's
link is full although each of theirs may be slower. Only peers that the run admits get anything, and a donor's link
belongs to a round first.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections.abc import Callable, Sequence
from typing import Any, AsyncIterator  # noqa: UP035  hivemind recognises streams by typing's AsyncIterator only

import torch
from hivemind.averaging import DecentralizedAverager
from hivemind.compression import NoCompression
from hivemind.p2p import P2PContext, PeerID
from hivemind.proto import averaging_pb2, runtime_pb2
from hivemind.utils import MPFuture
from hivemind.utils.asyncio import aiter_with_timeout, anext

from swarm.closing import until_receiver_closes
from swarm.flow_control import Room, Words, messages_ahead
from swarm.gate import Gate
from swarm.service import MAX_BROKEN_STREAMS
from swarm.snapshot import Layout, Snapshot
from swarm.spec import AveragingSpec
from swarm.tensor_stream import MESSAGE_BYTES, TensorCollector, UnfitTensors, pack_tensors

logger = logging.getLogger(__name__)

BRANCH_HEX_DIGITS = 16
BRANCH = re.compile(f"[0-9a-f]{{0,{BRANCH_HEX_DIGITS}}}")

# how old what a newcomer gets may be: a step is longer
SAME_COPY_SECONDS = 0.5

# the state to hand to a newcomer, or None when there is nothing to give
StateSource = Callable[[], "Snapshot | None"]


class StateUnavailable(Exception):
    """The donor did not send a state that fits; says why."""


class StateUnfit(StateUnavailable):
    """What the donor sent cannot be a state of this run: wrong shapes, too much, or values that are not finite."""


class StateSharing(DecentralizedAverager):
    """An averager that gives and takes state by our own rules."""

    _spec: AveragingSpec
    _gate: Gate
    _state_source: StateSource | None
    _no_round: asyncio.Event
    _copy: asyncio.Future[Any] | None = None

    def download_state(self, *donors: str, layouts: Sequence[Layout], timeout: float) -> Snapshot:
        """Fetch the training state, a part from each donor.

        :param layouts: of the tensors that must arrive, in order
        :raises StateUnavailable: a donor is gone, too slow, has nothing, or sends something else; or they are not at
            the same step
        """
        future: MPFuture = MPFuture()
        request = {
            "donors": donors,
            "layouts": list(layouts),
            "timeout": timeout,
            "future": future,
        }
        self._outer_pipe.send(("_fetch_state", [], request))
        try:
            return future.result(timeout + 5)
        except StateUnavailable:
            raise
        except Exception as error:
            raise StateUnavailable(f"{type(error).__name__} {error}".strip()) from None

    def get_current_state(self) -> tuple[Any, Sequence[torch.Tensor], Any]:
        """Called by hivemind in the host process when a newcomer asks; an empty list means: nothing to give."""
        state = self._state_source() if self._state_source is not None else None
        step, branch, tensors = state if state is not None else Snapshot(-1, "", [])
        return {"step": step, "branch": branch, "tensors": len(tensors)}, tensors, None

    # Everything below runs in the averager process.

    async def _declare_for_download_periodically(self) -> None:
        """Donors are found by their signed leases; hivemind's unsigned announcement is not made."""

    async def rpc_download_state(
        self, _request: averaging_pb2.DownloadRequest, context: P2PContext
    ) -> AsyncIterator[averaging_pb2.DownloadData]:
        """hivemind's own way to ask, which none of ours takes: nothing comes."""
        logger.warning("%s asked for our state in hivemind's way", context.remote_id)
        return
        yield  # hivemind wants a stream

    async def rpc_download_tensors(
        self, words: AsyncIterator[runtime_pb2.ExpertRequest], context: P2PContext
    ) -> AsyncIterator[averaging_pb2.DownloadData]:
        """Stream a range of our current state: metadata in the first message, then the tensors uncompressed.

        :param words: see `swarm.flow_control`; the first one names the range
        """
        if not await self._gate.admits(str(context.remote_id)):
            logger.warning("%s may not have our state", context.remote_id)
            return
        request = await asyncio.wait_for(anext(words), self._spec.next_chunk_timeout)
        first, last = self._asked_range(request.metadata)
        metadata, tensors, _infos = await self._current_state()
        room = Room(messages_ahead(self.bandwidth, MESSAGE_BYTES))
        listening = asyncio.ensure_future(room.listen(words))
        try:
            for part in pack_tensors(tensors[first:last], NoCompression()):
                # a round goes first, matchmaking included, or all its members would wait for our link
                if not self._no_round.is_set():
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(self._no_round.wait(), self._spec.next_chunk_timeout / 2)
                try:
                    await asyncio.wait_for(room.take(), self._spec.next_chunk_timeout)
                except asyncio.TimeoutError:
                    logger.info("%s takes no more of our state", context.remote_id)
                    return
                yield averaging_pb2.DownloadData(tensor_part=part, metadata=metadata)
                metadata = b""
            if not metadata:
                await until_receiver_closes()
        finally:
            listening.cancel()

    async def _current_state(self) -> tuple[bytes, Sequence[torch.Tensor], Any]:
        """A copy of our state, the same one for all who ask while it is made or soon after.

        Newcomers come in crowds, and every copy costs its memory and a wait for those who are behind it.
        """
        if self._copy is None:
            self._copy = asyncio.ensure_future(self._get_current_state_from_host_process())
            self._copy.add_done_callback(self._forget_copy_soon)
        return await asyncio.shield(self._copy)

    def _forget_copy_soon(self, copy: asyncio.Future[Any]) -> None:
        copy.get_loop().call_later(SAME_COPY_SECONDS, setattr, self, "_copy", None)

    def _asked_range(self, metadata: bytes) -> tuple[int, int]:
        first, last = self.serializer.loads(metadata)
        if not (isinstance(first, int) and isinstance(last, int) and 0 <= first < last):
            raise ValueError(f"no range of tensors: {metadata[:40]!r}")
        return first, last

    async def _fetch_state(
        self, donors: Sequence[str], layouts: list[Layout], timeout: float, future: MPFuture
    ) -> None:
        try:
            future.set_result(await asyncio.wait_for(self._receive_state(donors, layouts), timeout))
        except asyncio.TimeoutError:
            future.set_exception(StateUnavailable("a donor was silent, or slower than the time allowed"))
        except UnfitTensors as error:
            future.set_exception(StateUnfit(str(error)))
        except Exception as error:  # a donor can make deserialisation fail in any way
            future.set_exception(StateUnavailable(str(error) or type(error).__name__))

    async def _receive_state(self, donors: Sequence[str], layouts: list[Layout]) -> Snapshot:
        ranges = divide([layout.bytes for layout in layouts], len(donors))
        receiving = [
            asyncio.ensure_future(self._receive_range(donor, layouts[first:last], first, len(layouts)))
            for donor, (first, last) in zip(donors, ranges, strict=False)
        ]
        try:
            parts = await asyncio.gather(*receiving)
        finally:
            for task in receiving:  # when one fails the others are of no more use
                task.cancel()
        step, branch, _tensors = parts[0]
        if any((part.step, part.branch) != (step, branch) for part in parts):
            raise StateUnavailable("the donors are not at the same step")
        return Snapshot(step, branch, list(itertools.chain.from_iterable(part.tensors for part in parts)))

    async def _receive_range(self, donor: str, layouts: list[Layout], first: int, of: int) -> Snapshot:
        """Those of the donor's tensors from the first one on; asked for again if the stream breaks off, which looks as
        if it ended.
        """
        for _ in range(MAX_BROKEN_STREAMS):
            step, branch, collector = await self._receive_stream(donor, layouts, first, of)
            if step >= 0 and collector.has_all:
                break
        if step < 0:
            raise StateUnavailable("the donor has no state to give")
        return Snapshot(step, branch, collector.finish())

    async def _receive_stream(
        self, donor: str, layouts: list[Layout], first: int, of: int
    ) -> tuple[int, str, TensorCollector]:
        stub = self.get_stub(self._p2p, PeerID.from_base58(donor), namespace=self.prefix)
        words = Words(
            runtime_pb2.ExpertRequest(metadata=self.serializer.dumps([first, first + len(layouts)]))
        )
        opening = stub.rpc_download_tensors(words)
        stream = await asyncio.wait_for(opening, self._spec.next_chunk_timeout)
        step, branch, collector = -1, "", TensorCollector(layouts)
        # where a stream has broken off, it ends, or our next word cannot be sent
        async with contextlib.aclosing(stream):
            with contextlib.suppress(ConnectionError):
                async for message in aiter_with_timeout(stream, self._spec.next_chunk_timeout):
                    if message.metadata:
                        metadata = self.serializer.loads(message.metadata)
                        step, branch = int(metadata["step"]), str(metadata["branch"])
                        count = int(metadata["tensors"])
                        if step >= 0 and count != of:
                            raise UnfitTensors(f"the donor's state has {count} tensors, not {of}")
                    collector.add(message.tensor_part)
                    words.message_came()
                    if collector.has_all:
                        break
        if step >= 2**53 or not BRANCH.fullmatch(branch):
            raise StateUnavailable(f"the donor names an impossible step or branch: {step}, {branch[:40]!r}")
        return step, branch, collector


def divide(sizes: Sequence[int], parts: int) -> list[tuple[int, int]]:
    """At most so many consecutive ranges of tensors that are about equally large; none is empty.

    >>> divide([5, 1, 1, 1, 4], 3)
    [(0, 1), (1, 4), (4, 5)]
    >>> divide([7], 3)
    [(0, 1)]
    """
    total, ends, so_far = sum(sizes), list[int](), 0
    for index, size in enumerate(sizes):
        # a tensor belongs to the part in which its middle lies
        part = int(parts * (so_far + size / 2) / max(1, total))
        while len(ends) < part:
            ends.append(index)
        so_far += size
    bounds = sorted({0, *ends, len(sizes)})
    return list(itertools.pairwise(bounds))
