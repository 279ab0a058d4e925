"""A copy of the training state for newcomers, of which the first pieces travel while the rest is still being made.

It is made in the process that has the state, and read in the averager's, from memory that both share.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import Future
from contextlib import AbstractContextManager
from multiprocessing.synchronize import Lock
from typing import Any

import torch

from swarm.packing import PIECE_BYTES, Packing, piece_of
from swarm.snapshot import Layout, Snapshot

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.02
BROKEN_OFF = -1


def start_copying(
    lent: AbstractContextManager[Snapshot], lock: Lock
) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """Begin to copy a state, which does not change within its context; raises what entering the context raises.

    :param lock: the one that the reader is given; whoever holds it sees the bytes that are said to be there
    :return: what to tell a newcomer of the state, and what to give to `ReadableCopy`
    """
    begun: Future[tuple[dict[str, Any], list[torch.Tensor]]] = Future()
    threading.Thread(target=_copy, args=(lent, lock, begun), name="state copy", daemon=True).start()
    return begun.result()


def _copy(lent: AbstractContextManager[Snapshot], lock: Lock, begun: Future[Any]) -> None:
    copied = torch.zeros(1, dtype=torch.int64).share_memory_()
    try:
        with lent as state:
            layouts = [Layout.of(tensor) for tensor in state.tensors]
            described = {"step": state.step, "branch": state.branch, "layouts": [str(own) for own in layouts]}
            packing = Packing(layouts)
            buffer = packing.buffer()
            begun.set_result((described, [buffer, copied]))
            for tensor, target, end in zip(
                state.tensors, packing.tensors_in(buffer), packing.ends, strict=True
            ):
                target.copy_(tensor)
                with lock:
                    copied.fill_(end)
    except Exception as error:
        if not begun.done():
            begun.set_exception(error)
            return
        logger.exception("the copy of our state for a newcomer broke off")
        with lock:
            copied.fill_(BROKEN_OFF)


class ReadableCopy:
    """Pieces of a copy that may still be in the making.

    :param buffer, copied: from `start_copying`; `lock`: that was given to it
    """

    def __init__(self, buffer: torch.Tensor, copied: torch.Tensor, lock: Lock):
        self._buffer, self._copied, self._lock = buffer, copied, lock

    async def piece(self, number: int) -> bytes:
        """A piece, as soon as it is there; raises IndexError if there is no such, EOFError if there never will be."""
        piece = piece_of(self._buffer, number)
        end = number * PIECE_BYTES + len(piece)
        while (copied := self._bytes_copied()) < end:
            if copied == BROKEN_OFF:
                raise EOFError("the copy broke off")
            await asyncio.sleep(LOOK_SECONDS)
        return piece.numpy().tobytes()

    def _bytes_copied(self) -> int:
        with self._lock:
            return int(self._copied)
