"""How often a donor copies its state when newcomers come in a crowd."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from swarm import state_sharing
from swarm.state_sharing import StateSharing


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
