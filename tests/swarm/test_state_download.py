"""What a newcomer has of a state, and what it asks its donors for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
import torch
from hivemind.utils import MSGPackSerializer

from swarm import state_download
from swarm.packing import PIECE_BYTES, Packing, piece_of
from swarm.snapshot import Layout, Snapshot
from swarm.state_download import StateBehind, StateDownload, StateUnavailable, StateUnfit, Wishes

Result = TypeVar("Result")
LAYOUTS = [Layout((PIECE_BYTES,)), Layout((3,), torch.uint8), Layout((2, PIECE_BYTES // 4)), Layout(())]
DESCRIBED = [str(layout) for layout in LAYOUTS]


def a_state() -> tuple[list[torch.Tensor], list[bytes]]:
    """Tensors of these layouts, and their pieces."""
    packing = Packing(LAYOUTS)
    buffer = packing.buffer()
    tensors = packing.tensors_in(buffer)
    for index, tensor in enumerate(tensors):
        tensor.copy_(torch.arange(tensor.numel()).view(tensor.shape) % 251 + index)
    return tensors, [piece_of(buffer, number).numpy().tobytes() for number in range(packing.pieces)]


def all_agree(download: StateDownload, *answers: tuple[int, str]) -> list[object]:
    """What donors are told that answer at once."""

    async def scenario() -> list[object]:
        asking = [download.agree(step, branch, DESCRIBED) for step, branch in answers]
        return list(await asyncio.gather(*asking, return_exceptions=True))

    return in_a_loop(scenario)


def in_a_loop(scenario: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    return asyncio.run(asyncio.wait_for(scenario(), timeout=10))


def test_pieces_come_in_any_order_from_anybody_and_make_the_state():
    tensors, pieces = a_state()

    async def scenario() -> Snapshot:
        download = StateDownload(LAYOUTS, donors=1)
        await download.agree(7, "ab", DESCRIBED)
        fast, slow, gone = download.take(3), download.take(1), download.take(2)
        assert (len(pieces), fast, slow, gone) == (7, [0, 1, 2], [3], [4, 5])
        for number in (*reversed(fast), *slow):
            download.put(number, pieces[number])
        download.give_back(gone)
        assert not download.is_complete
        for number in await download.wait_for_pieces(100):
            download.put(number, pieces[number])
        assert download.is_complete
        assert await download.wait_for_pieces(100) == []
        return download.finish()

    state = in_a_loop(scenario)
    assert (state.step, state.branch) == (7, "ab")
    assert all(torch.equal(own, sent) for own, sent in zip(state.tensors, tensors, strict=True))


def test_who_waits_is_woken_by_pieces_that_come_back_and_by_the_end():
    _tensors, pieces = a_state()

    async def scenario() -> tuple[list[int], list[int]]:
        download = StateDownload(LAYOUTS, donors=2)
        asked = download.take(100)
        waiting = asyncio.ensure_future(download.wait_for_pieces(2))
        await asyncio.sleep(0)
        assert not waiting.done()
        download.give_back(asked[-2:])
        again = await waiting
        waiting = asyncio.ensure_future(download.wait_for_pieces(2))
        for number in asked:
            await asyncio.sleep(0)
            assert not waiting.done()
            download.put(number, pieces[number])
        return again, await waiting

    assert in_a_loop(scenario) == ([5, 6], [])


def test_what_one_donor_is_late_with_comes_from_another(monkeypatch):
    monkeypatch.setattr(state_download, "LATE_SECONDS", 0.05)
    tensors, pieces = a_state()

    async def scenario() -> tuple[list[int], Snapshot]:
        download = StateDownload(LAYOUTS, donors=2)
        await asyncio.gather(*(download.agree(7, "", DESCRIBED) for _donor in range(2)))
        late, quick = download.take(3), download.take(100)
        for number in quick:
            download.put(number, pieces[number])
        again = await download.wait_for_pieces(2)
        download.put(late[0], pieces[late[0]])  # after all
        download.put(again[0], b"\0" * PIECE_BYTES)  # once more: it is there already
        download.give_back(late[1:])
        for number in (again[1], late[2]):
            download.put(number, pieces[number])
        assert not download.is_complete, "nobody was asked for the last one"
        for number in await download.wait_for_pieces(100):
            download.put(number, pieces[number])
        return again, download.finish()

    again, state = in_a_loop(scenario)
    assert again == [0, 1]
    assert all(torch.equal(own, sent) for own, sent in zip(state.tensors, tensors, strict=True))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ((-1, "", []), "no state to give"),
        ((7, "no branch", DESCRIBED), "impossible"),
        ((2**60, "", DESCRIBED), "impossible"),
        ((7, "cd", DESCRIBED), "not at the same step"),
        ((8, "ab", DESCRIBED), "not at the same step"),
        ((6, "ab", DESCRIBED), "at step 6, others are at 7"),
        ((7, "ab", DESCRIBED[1:]), "3 tensors, not 4"),
        ((7, "ab", [*DESCRIBED[:3], "float32[2]"]), r"tensor 3 is float32\[2\], not float32\[\]"),
    ],
)
def test_what_donors_say_must_agree(said, reason):
    download = StateDownload(LAYOUTS, donors=1)
    assert all_agree(download, (7, "ab")) == [None]
    with pytest.raises(StateUnavailable, match=reason):
        asyncio.run(download.agree(*said))


def test_while_donors_make_a_step_what_most_of_them_have_is_taken_and_the_newer_of_two():
    for answers, taken in (
        ([(7, "ab"), (8, "cd"), (7, "ab")], (7, "ab")),
        ([(7, "ab"), (8, "cd"), (8, "cd")], (8, "cd")),
        ([(7, "ab"), (8, "cd")], (8, "cd")),
    ):
        told = all_agree(StateDownload(LAYOUTS, donors=len(answers)), *answers)
        for answer, failure in zip(answers, told, strict=True):
            assert (failure is None) == (answer == taken)
            assert isinstance(failure, StateBehind) == (answer[0] < taken[0])


def test_a_donor_that_does_not_answer_keeps_nobody_waiting():
    assert all_agree(StateDownload(LAYOUTS, donors=3), (7, "ab")) == [None]


def test_pieces_that_cannot_be_of_the_state_are_refused():
    _tensors, pieces = a_state()

    async def scenario() -> StateDownload:
        download = StateDownload(LAYOUTS, donors=1)
        await download.agree(7, "ab", DESCRIBED)
        asked = download.take(100)
        for number, piece in ((0, pieces[0] + b"x"), (0, pieces[0][:-1]), (6, pieces[0])):
            with pytest.raises(StateUnfit, match="bytes"):
                download.put(number, piece)
        for number in asked:
            download.put(number, b"\xff" * len(pieces[number]))  # not a number
        return download

    with pytest.raises(StateUnfit, match="tensor 0 has values that are not finite"):
        in_a_loop(scenario).finish()


def test_wishes_are_said_at_once_and_silence_now_and_then(monkeypatch):
    monkeypatch.setattr(state_download, "WORD_SECONDS", 0.01)

    async def scenario() -> list[list[int]]:
        wishes = Wishes()
        said = aiter(wishes)
        first = await anext(said)
        wishes.add([4, 2])
        wishes.add([3])
        second, third = await anext(said), await anext(said)
        return [MSGPackSerializer.loads(word.metadata) for word in (first, second, third)]

    assert in_a_loop(scenario) == [[], [4, 2, 3], []]


def test_a_newcomer_that_is_cancelled_just_when_it_should_speak_says_nothing_more():
    async def scenario() -> bool:
        wishes, said = Wishes(), list[object]()

        async def speak() -> None:
            async for word in wishes:
                said.append(word)

        speaking = asyncio.ensure_future(speak())
        for _turn in range(5):  # it waits for wishes now
            await asyncio.sleep(0)
        wishes.add([1])
        await asyncio.sleep(0)
        speaking.cancel()
        await asyncio.wait({speaking})
        return speaking.cancelled() and len(said) <= 1

    assert in_a_loop(scenario)
