"""Hands the training state out and fetches it, beside averaging.

State comes from donors that the caller chose by signed records, of a known layout, and never from whoever announces
itself; hyperparameters do not travel. Several donors of the same step and branch send it in pieces, so that a
newcomer's link is full although each of theirs may be slower. Only peers that the run admits get anything, and a
donor's link belongs to a round first.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractContextManager
from multiprocessing.synchronize import Lock
from typing import Any, AsyncIterator  # noqa: UP035  hivemind recognises streams by typing's AsyncIterator only

import torch
from hivemind.averaging import DecentralizedAverager
from hivemind.p2p import P2PContext, PeerID
from hivemind.proto import averaging_pb2, runtime_pb2
from hivemind.utils import MPFuture
from hivemind.utils.asyncio import aiter_with_timeout

from swarm.closing import until_receiver_closes
from swarm.flow_control import AHEAD_MESSAGES, messages_ahead
from swarm.gate import Gate
from swarm.packing import PIECE_BYTES
from swarm.service import MAX_BROKEN_STREAMS
from swarm.snapshot import Layout, Snapshot
from swarm.spec import AveragingSpec
from swarm.state_copy import ReadableCopy, start_copying
from swarm.state_download import StateBehind, StateBusy, StateDownload, StateUnavailable, StateUnfit, Wishes

logger = logging.getLogger(__name__)

# how old what a newcomer gets may be: a step is longer
SAME_COPY_SECONDS = 0.5
# streams of state at a time, each of which may keep a copy alive: others ask somebody else, or come again
MAX_NEWCOMERS = 16
# the stream of a newcomer that has lost its connection may last a little longer than that
MAX_STREAMS_EACH = 2
# a donor is asked for so many pieces at a time, if there are more
PIECES_A_WISH = 2
# a donor that has not yet made a step that others have made is asked again so often, for each answer costs it a copy
BEHIND_SECONDS = 2.0
MAX_TIMES_BEHIND = 4

NOTHING_TO_GIVE: dict[str, Any] = {"step": -1, "branch": "", "layouts": []}
BUSY = {**NOTHING_TO_GIVE, "busy": True}

# the state to hand to a newcomer, which does not change within the context; or None when there is nothing to give
StateSource = Callable[[], AbstractContextManager[Snapshot] | None]


class StateSharing(DecentralizedAverager):
    """An averager that gives and takes state by our own rules."""

    _spec: AveragingSpec
    _gate: Gate
    _state_source: StateSource | None
    _no_round: asyncio.Event
    _copy_lock: Lock
    _copy: asyncio.Future[Any] | None = None
    _newcomers: Counter[str]

    def download_state(self, *donors: str, layouts: Sequence[Layout], timeout: float) -> Snapshot:
        """Fetch the training state from donors, each of which sends pieces of it as fast as it can.

        :param layouts: of the tensors that must arrive, in order
        :raises StateUnavailable: every donor is gone, too slow, has nothing, sends something else, or is at another
            step than most; `StateBusy` if one of them serves too many others now
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
        """Called by hivemind in the host process when a newcomer asks: a copy, or nothing if there is none."""
        lent = self._state_source() if self._state_source is not None else None
        if lent is None:
            return NOTHING_TO_GIVE, [], None
        return *start_copying(lent, self._copy_lock), None

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

    async def rpc_download_pieces(
        self, wishes: AsyncIterator[runtime_pb2.ExpertRequest], context: P2PContext
    ) -> AsyncIterator[averaging_pb2.DownloadData]:
        """Send pieces of our current state as they are wished for.

        The first message has metadata: step, branch, layouts, and how many pieces may be on their way.

        :param wishes: see `swarm.state_download`; each has numbers of pieces
        """
        newcomer = str(context.remote_id)
        if not await self._gate.admits(newcomer):
            logger.warning("%s may not have our state", newcomer)
            return
        if self._newcomers.total() >= MAX_NEWCOMERS or self._newcomers[newcomer] >= MAX_STREAMS_EACH:
            busy = self.serializer.dumps(BUSY)
            yield averaging_pb2.DownloadData(metadata=self.serializer.dumps([busy, 0]))
            await until_receiver_closes()
            return
        self._newcomers[newcomer] += 1
        try:
            async with contextlib.aclosing(self._hand_out(wishes, context)) as messages:
                async for message in messages:
                    yield message
        finally:
            self._newcomers[newcomer] -= 1
            self._newcomers = +self._newcomers  # without those that are gone

    async def _hand_out(
        self, wishes: AsyncIterator[runtime_pb2.ExpertRequest], context: P2PContext
    ) -> AsyncGenerator[averaging_pb2.DownloadData, None]:
        described, tensors, _infos = await self._current_state()
        ahead = messages_ahead(self.bandwidth, PIECE_BYTES)
        yield averaging_pb2.DownloadData(metadata=self.serializer.dumps([described, ahead]))
        if not tensors:
            await until_receiver_closes()
            return
        buffer, copied = tensors
        copy = ReadableCopy(buffer, copied, self._copy_lock)
        async for number in self._wished(wishes, context):
            # a round goes first, matchmaking included, or all its members would wait for our link
            if not self._no_round.is_set():
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._no_round.wait(), self._spec.next_chunk_timeout / 2)
            piece = await copy.piece(number)
            yield averaging_pb2.DownloadData(tensor_part=runtime_pb2.Tensor(buffer=piece))

    async def _wished(
        self, wishes: AsyncIterator[runtime_pb2.ExpertRequest], context: P2PContext
    ) -> AsyncIterator[int]:
        """Numbers of the pieces that a newcomer wishes for, until it closes, or is silent, or takes too long."""
        clock = asyncio.get_running_loop().time
        end = clock() + self._spec.download_timeout
        try:
            async for wish in aiter_with_timeout(wishes, self._spec.next_chunk_timeout):
                if clock() > end:
                    logger.warning("%s had its time to fetch our state", context.remote_id)
                    return
                for number in self.serializer.loads(wish.metadata)[: AHEAD_MESSAGES[1]]:
                    yield number
        except asyncio.TimeoutError:
            logger.info("%s says no more what it wants of our state", context.remote_id)

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

    async def _fetch_state(
        self, donors: Sequence[str], layouts: list[Layout], timeout: float, future: MPFuture
    ) -> None:
        try:
            future.set_result(await asyncio.wait_for(self._receive_state(donors, layouts), timeout))
        except asyncio.TimeoutError:
            future.set_exception(StateUnavailable("a donor was silent, or slower than the time allowed"))
        except StateUnavailable as error:
            future.set_exception(error)
        except Exception as error:  # a donor can make deserialisation fail in any way
            future.set_exception(StateUnavailable(str(error) or type(error).__name__))

    async def _receive_state(self, donors: Sequence[str], layouts: list[Layout]) -> Snapshot:
        download = StateDownload(layouts, len(donors))
        pending = {asyncio.ensure_future(self._receive_from(donor, download)) for donor in donors}
        failures = list[BaseException]()
        try:
            while pending and not download.is_complete:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                failures += [failure for task in done if (failure := _failure_of(task))]
        finally:
            for task in pending:
                task.cancel()
        if not download.is_complete:
            raise next((failure for failure in failures if isinstance(failure, StateBusy)), failures[0])
        return await asyncio.get_running_loop().run_in_executor(None, download.finish)

    async def _receive_from(self, donor: str, download: StateDownload) -> None:
        """Ask a donor for pieces until all are there; again if a stream breaks off, which looks as if it ended."""
        broken_off = was_behind = 0
        while broken_off < MAX_BROKEN_STREAMS:
            try:
                came = await self._receive_in_a_stream(donor, download)
            except StateBehind:
                was_behind += 1
                if was_behind == MAX_TIMES_BEHIND:
                    raise
                await asyncio.sleep(BEHIND_SECONDS)
                continue
            if download.is_complete:
                return
            broken_off = 1 if came else broken_off + 1
        raise StateUnavailable("its streams broke off")

    async def _receive_in_a_stream(self, donor: str, download: StateDownload) -> bool:
        """Returns whether any piece came."""
        stub = self.get_stub(self._p2p, PeerID.from_base58(donor), namespace=self.prefix)
        wishes, asked, came, ahead = Wishes(), deque[int](), False, 0
        stream = await asyncio.wait_for(stub.rpc_download_pieces(wishes), self._spec.next_chunk_timeout)
        try:
            # where a stream has broken off, it ends, or our next wish cannot be sent
            async with contextlib.aclosing(stream):
                with contextlib.suppress(ConnectionError):
                    async for message in aiter_with_timeout(stream, self._spec.next_chunk_timeout):
                        if message.metadata:
                            ahead = await self._opened(message.metadata, download)
                        elif asked:
                            download.put(asked[0], message.tensor_part.buffer)
                            asked.popleft()  # only now: what does not fit is asked of another one
                            came = True
                        else:
                            raise StateUnfit("the donor sent a piece that nobody has asked for")
                        numbers = await self._next_wish(download, ahead - len(asked), bool(asked))
                        if download.is_complete:
                            break
                        asked.extend(numbers)
                        wishes.add(numbers)
        finally:
            download.give_back(asked)
        return came

    async def _next_wish(self, download: StateDownload, most: int, is_busy: bool) -> list[int]:
        if not is_busy:
            return await download.wait_for_pieces(most)
        return download.take(most) if most >= PIECES_A_WISH else []

    async def _opened(self, metadata: bytes, download: StateDownload) -> int:
        """How many pieces may be on their way; raises if the donor's state is not what we are fetching."""
        described, ahead = self.serializer.loads(metadata)
        state = self.serializer.loads(described)
        if state.get("busy"):
            raise StateBusy("the donor is serving others")
        layouts = [str(layout) for layout in state["layouts"]]
        await download.agree(int(state["step"]), str(state["branch"]), layouts)
        return min(max(int(ahead), 1), AHEAD_MESSAGES[1])


def _failure_of(task: asyncio.Task[None]) -> BaseException | None:
    """Why a donor is of no more use."""
    return StateUnavailable("the connection was closed") if task.cancelled() else task.exception()
