"""How often a donor copies its state when newcomers come in a crowd."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections import Counter
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hivemind.proto import runtime_pb2
from hivemind.utils import MSGPackSerializer

from swarm import state_sharing
from swarm.packing import PIECE_BYTES
from swarm.state_sharing import MAX_NEWCOMERS, MAX_STREAMS_EACH, StateSharing


class Donor(StateSharing):
    """Only what makes copies; they take until `ready` is set."""

    def __init__(self) -> None:
        self._parent_pid = (
            -os.getpid()
        )  # hivemind ends the process of an averager that is forgotten; this has none
        self.copies, self.ready, self.fails = 0, asyncio.Event(), False

    async def _get_current_state_from_host_process(self) -> tuple[bytes, list[Any], None]:
        self.copies += 1
        copy = self.copies
        await self.ready.wait()
        if self.fails:
            raise ValueError("no state")
        return bytes([copy]), [], None


async def ask(donor: Donor) -> int:
    """The number of the copy that a newcomer gets."""
    metadata, _tensors, _infos = await donor._current_state()
    return metadata[0]


def test_a_crowd_gets_one_copy_and_who_comes_later_another(monkeypatch):
    monkeypatch.setattr(state_sharing, "SAME_COPY_SECONDS", 0.0)

    async def scenario() -> tuple[list[int], int]:
        donor = Donor()
        crowd = [asyncio.ensure_future(ask(donor)) for _newcomer in range(5)]
        await asyncio.sleep(0)
        donor.ready.set()
        copies = await asyncio.gather(*crowd)
        while donor._copy is not None:
            await asyncio.sleep(0)
        return copies, await ask(donor)

    assert asyncio.run(asyncio.wait_for(scenario(), timeout=10)) == ([1] * 5, 2)


def test_a_newcomer_that_leaves_takes_the_copy_from_nobody():
    async def scenario() -> int:
        donor = Donor()
        leaving, staying = (asyncio.ensure_future(ask(donor)) for _newcomer in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        donor.ready.set()
        return await staying

    assert asyncio.run(asyncio.wait_for(scenario(), timeout=10)) == 1


def test_a_copy_that_fails_is_tried_again_by_the_next(monkeypatch):
    monkeypatch.setattr(state_sharing, "SAME_COPY_SECONDS", 0.0)

    async def scenario() -> int:
        donor = Donor()
        donor.ready.set()
        donor.fails = True
        with pytest.raises(ValueError, match="no state"):
            await ask(donor)
        donor.fails = False
        while donor._copy is not None:
            await asyncio.sleep(0)
        return await ask(donor)

    assert asyncio.run(asyncio.wait_for(scenario(), timeout=10)) == 2


class HandingOut(Donor):
    """Hands one piece out, again and again."""

    bandwidth = None

    def __init__(self, download_timeout: float) -> None:
        super().__init__()
        self.ready.set()
        self._newcomers, self._no_round, self._copy_lock = Counter(), asyncio.Event(), multiprocessing.Lock()
        self._no_round.set()
        self._gate: Any = SimpleNamespace(admits=self._admits)
        self._spec: Any = SimpleNamespace(next_chunk_timeout=60.0, download_timeout=download_timeout)

    async def _admits(self, _peer: str) -> bool:
        return True

    async def _get_current_state_from_host_process(self) -> tuple[bytes, list[Any], None]:
        described = MSGPackSerializer.dumps({"step": 1, "branch": "", "layouts": []})
        return described, [torch.zeros(PIECE_BYTES, dtype=torch.uint8), torch.tensor([PIECE_BYTES])], None

    async def serves(self, newcomer: str, open_streams: list[Any]) -> bool:
        """Whether a newcomer is not told to come again; its stream stays open."""
        stream = self.rpc_download_pieces(silent(), SimpleNamespace(remote_id=newcomer))  # type: ignore[arg-type]
        open_streams.append(stream)
        described, _ahead = MSGPackSerializer.loads((await anext(stream)).metadata)
        return not MSGPackSerializer.loads(described).get("busy")


async def silent() -> AsyncIterator[runtime_pb2.ExpertRequest]:
    await asyncio.Event().wait()
    yield runtime_pb2.ExpertRequest()


async def wishing_for_nothing() -> AsyncIterator[runtime_pb2.ExpertRequest]:
    while True:
        await asyncio.sleep(0.01)
        yield runtime_pb2.ExpertRequest(metadata=MSGPackSerializer.dumps([]))


def test_few_newcomers_are_served_at_a_time_and_others_told_to_come_again():
    async def scenario() -> tuple[list[bool], list[bool], bool]:
        donor, streams = HandingOut(download_timeout=60.0), list[Any]()
        one = [await donor.serves("one", streams) for _ in range(MAX_STREAMS_EACH + 1)]
        others = [await donor.serves(f"other {number}", streams) for number in range(MAX_NEWCOMERS)]
        for stream in streams:
            await stream.aclose()
        return one, others, await donor.serves("later", streams)

    one, others, later = asyncio.run(asyncio.wait_for(scenario(), timeout=30))
    assert one == [True] * MAX_STREAMS_EACH + [False]
    assert others == [True] * (MAX_NEWCOMERS - MAX_STREAMS_EACH) + [False] * MAX_STREAMS_EACH
    assert later


def test_who_wishes_for_nothing_is_not_served_for_ever():
    async def scenario() -> int:
        donor = HandingOut(download_timeout=0.05)
        context: Any = SimpleNamespace(remote_id="idle")
        return len([message async for message in donor.rpc_download_pieces(wishing_for_nothing(), context)])

    assert asyncio.run(asyncio.wait_for(scenario(), timeout=30)) == 1
