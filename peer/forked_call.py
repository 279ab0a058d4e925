"""A function called in a process of its own, for what must not happen to this one: CUDA starts, a driver hangs."""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator
from typing import Any, Literal


@contextlib.contextmanager
def in_a_fork(
    function: Callable[..., Any],
    *args: Any,
    seconds: float,
    forked_by: Literal["fork", "forkserver"] = "forkserver",
) -> Iterator[Any]:
    """The result of `function(*args)`; raises TimeoutError, or EOFError if the process ended without one.

    :param forked_by: this process itself, or the fork server
    """
    # mypy knows no `Process` of a context whose kind is a choice
    context: Any = multiprocessing.get_context(forked_by)
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, args))
    process.start()
    sender.close()
    try:
        if not receiver.poll(seconds):
            raise TimeoutError(f"no answer within {seconds:.0f} s")
        yield receiver.recv()
    finally:
        process.kill()
        process.join()
        receiver.close()


def _answer(sender: Any, function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    sender.send(function(*args))
