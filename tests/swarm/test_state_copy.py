"""A copy of the state that travels while it is being made."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import threading
from collections.abc import Iterator

import pytest
import torch

from swarm.packing import PIECE_BYTES
from swarm.snapshot import Snapshot
from swarm.state_copy import ReadableCopy, start_copying


class Halting(list[torch.Tensor]):
    """Tensors of which the second one is given out for copying only when `go_on` is set, if `fails` is not."""

    go_on, fails, times = threading.Event(), False, 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        self.times += 1
        for index, tensor in enumerate(super().__iter__()):
            if self.times > 1 and index == 1:  # they are looked at before they are copied
                self.go_on.wait(10)
                if self.fails:
                    raise RuntimeError("the device is gone")
            yield tensor


@contextlib.contextmanager
def lent(tensors: list[torch.Tensor], returned: threading.Event) -> Iterator[Snapshot]:
    yield Snapshot(7, "ab", tensors)
    returned.set()


@pytest.mark.parametrize("fails", [False, True])
def test_the_beginning_is_there_before_the_end(fails):
    tensors = Halting([torch.full((PIECE_BYTES // 4,), 1.5), torch.full((2, 3), 7, dtype=torch.uint8)])
    tensors.go_on, tensors.fails = threading.Event(), fails
    lock, returned = multiprocessing.Lock(), threading.Event()
    described, (buffer, copied) = start_copying(lent(tensors, returned), lock)
    assert described == {"step": 7, "branch": "ab", "layouts": ["float32[16384]", "uint8[2, 3]"]}

    async def scenario() -> bytes:
        copy = ReadableCopy(buffer, copied, lock)
        assert await copy.piece(0) == tensors[0].numpy().tobytes()
        second = asyncio.ensure_future(copy.piece(1))
        done, _pending = await asyncio.wait({second}, timeout=0.1)
        assert not done
        assert not returned.is_set(), "the state may change while it is copied"
        tensors.go_on.set()
        return await second

    if fails:
        with pytest.raises(EOFError):
            asyncio.run(asyncio.wait_for(scenario(), timeout=10))
        return
    assert asyncio.run(asyncio.wait_for(scenario(), timeout=10)) == bytes([7] * 6)
    assert returned.wait(10)


def test_a_state_that_cannot_be_had_is_said_at_once():
    @contextlib.contextmanager
    def broken() -> Iterator[Snapshot]:
        raise ValueError("no state")
        yield

    with pytest.raises(ValueError, match="no state"):
        start_copying(broken(), multiprocessing.Lock())


def test_there_is_no_piece_beyond_the_end():
    _described, (buffer, copied) = start_copying(
        contextlib.nullcontext(Snapshot(0, "", [torch.zeros(3)])), lock := multiprocessing.Lock()
    )
    copy = ReadableCopy(buffer, copied, lock)
    for number in (1, -1, 2**60):
        with pytest.raises(IndexError):
            asyncio.run(copy.piece(number))
