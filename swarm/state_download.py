"""What a newcomer has of a state that several donors send it in pieces.

Every donor is asked for the next pieces as soon as it has sent some, so that a fast one sends more than a slow one, and
what one that goes away still owed is asked of the others.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Sequence

import torch
from hivemind.proto import runtime_pb2
from hivemind.utils import MSGPackSerializer

from swarm.flow_control import wait_at_most
from swarm.packing import Packing, piece_of
from swarm.snapshot import BRANCH_HEX_DIGITS, Layout, Snapshot

BRANCH = re.compile(f"[0-9a-f]{{0,{BRANCH_HEX_DIGITS}}}")
# only by sending does a receiver notice that the other side has closed the stream
WORD_SECONDS = 2.0
# for the other donors to answer after the first one
ANSWER_SECONDS = 0.5
# what a donor has not sent for so long is asked of another one, too, if that has nothing else to send
LATE_SECONDS = 5.0


class StateUnavailable(Exception):
    """The donor did not send a state that fits; says why."""


class StateUnfit(StateUnavailable):
    """What the donor sent cannot be a state of this run: wrong shapes, too much, or values that are not finite."""


class StateBusy(StateUnavailable):
    """The donor serves as many others as it can: come again."""


class StateBehind(StateUnavailable):
    """The donor has not yet made the step of which others send the state."""


class StateDownload:
    """The pieces of a state: which are there, which are asked for, which nobody has been asked for.

    Use it within a running event loop.

    :param layouts: of the tensors that must arrive, in order
    :param donors: how many will be asked
    """

    def __init__(self, layouts: Sequence[Layout], donors: int):
        self._layouts = list(layouts)
        self._packing = Packing(self._layouts)
        self._buffer = self._packing.buffer()
        self._wanted = deque(range(self._packing.pieces))
        # when a donor was last asked for it, in seconds; the longest ago first
        self._asked: dict[int, float] = {}
        self._changed = asyncio.Event()
        self._donors, self._answers, self._all_answered = donors, list[tuple[int, str]](), asyncio.Event()
        self._of: tuple[int, str] | None = None

    @property
    def is_complete(self) -> bool:
        """Whether all pieces are there."""
        return not (self._wanted or self._asked)

    async def agree(self, step: int, branch: str, layouts: Sequence[str]) -> None:
        """Call with what a donor says of its state; raises if its pieces do not belong to those of the others.

        What most of those say who answer soon after the first one holds for all; of as many, the newest step.
        """
        self._check(step, branch, layouts)
        self._answers.append((step, branch))
        if len(self._answers) == self._donors:
            self._all_answered.set()
        if self._of is None:
            await wait_at_most(ANSWER_SECONDS, self._all_answered.wait())
        said = Counter(self._answers)
        self._of = self._of or max(said, key=lambda answer: (said[answer], answer[0]))
        if step < self._of[0]:
            raise StateBehind(f"the donor is at step {step}, others are at {self._of[0]}")
        if self._of != (step, branch):
            raise StateUnavailable("the donors are not at the same step")

    def _check(self, step: int, branch: str, layouts: Sequence[str]) -> None:
        if step < 0:
            raise StateUnavailable("the donor has no state to give")
        if step >= 2**53 or not BRANCH.fullmatch(branch):
            raise StateUnavailable(f"the donor names an impossible step or branch: {step}, {branch[:40]!r}")
        if len(layouts) != len(self._layouts):
            raise StateUnfit(f"the donor's state has {len(layouts)} tensors, not {len(self._layouts)}")
        for index, (layout, expected) in enumerate(zip(layouts, self._layouts, strict=True)):
            if layout != str(expected):
                raise StateUnfit(f"tensor {index} is {layout[:80]}, not {expected}")

    def take(self, most: int) -> list[int]:
        """Numbers of pieces to ask a donor for, which nobody was asked for."""
        return self._ask([self._wanted.popleft() for _ in range(min(most, len(self._wanted)))])

    async def wait_for_pieces(self, most: int) -> list[int]:
        """The same for a donor that has nothing else to send, also such as others are late with; none at the end."""
        while not self.is_complete:
            if numbers := self.take(most) or self._take_late(most):
                return numbers
            self._changed.clear()
            await wait_at_most(LATE_SECONDS, self._changed.wait())
        return []

    def _take_late(self, most: int) -> list[int]:
        since = asyncio.get_running_loop().time() - LATE_SECONDS
        return self._ask([number for number, asked in self._asked.items() if asked <= since][:most])

    def _ask(self, numbers: list[int]) -> list[int]:
        for number in numbers:
            self._asked.pop(number, None)
            self._asked[number] = asyncio.get_running_loop().time()
        return numbers

    def give_back(self, numbers: Iterable[int]) -> None:
        """Call with those that a donor will not send."""
        missing = [number for number in numbers if self._asked.pop(number, None) is not None]
        self._wanted.extendleft(sorted(missing, reverse=True))
        self._changed.set()

    def put(self, number: int, piece: bytes) -> None:
        """Call with a piece that has come."""
        target = piece_of(self._buffer, number)
        if len(piece) != len(target):
            raise StateUnfit(f"piece {number} has {len(piece)} bytes, not {len(target)}")
        if self._asked.pop(number, None) is not None:
            target.copy_(torch.frombuffer(bytearray(piece), dtype=torch.uint8))
        if self.is_complete:
            self._changed.set()

    def finish(self) -> Snapshot:
        """The whole state, in shared memory."""
        tensors = self._packing.tensors_in(self._buffer)
        for index, tensor in enumerate(tensors):
            if not torch.isfinite(tensor).all():
                raise StateUnfit(f"tensor {index} has values that are not finite")
        assert self._of is not None, "nobody has said of which step it is"
        return Snapshot(*self._of, tensors)


class Wishes:
    """What a newcomer says to a donor: numbers of pieces, now and then none."""

    def __init__(self) -> None:
        self._numbers, self._due = list[int](), asyncio.Event()

    def add(self, numbers: Sequence[int]) -> None:
        """Ask for these pieces, in this order."""
        self._numbers += numbers
        if numbers:
            self._due.set()

    async def __aiter__(self) -> AsyncIterator[runtime_pb2.ExpertRequest]:
        while True:
            await wait_at_most(WORD_SECONDS, self._due.wait())
            self._due.clear()
            numbers, self._numbers = self._numbers, []
            yield runtime_pb2.ExpertRequest(metadata=MSGPackSerializer.dumps(numbers))
