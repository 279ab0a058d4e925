"""Being stopped while ranks measure: everything is unwound, so that no process and no file is left; then one line.

A second signal ends this process at once. The ranks die with it, and the next start sweeps up their files.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType

from peer.grace import SIGNALS
from swarm.errors import ArtelError


class Interrupted(ArtelError):
    """Somebody stopped us by a signal; the exit code is the shell's for it."""

    def __init__(self, signum: int):
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.exit_code = 128 + signum


class _Told(BaseException):
    """Passes through everything that would treat an error."""


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """In the main thread: a polite signal ends what is inside of this; raises `Interrupted`."""
    told: list[int] = []

    def handle(signum: int, _frame: FrameType | None) -> None:
        if told:
            os._exit(128 + signum)
        told.append(signum)
        raise _Told

    before = {name: signal.signal(getattr(signal, name), handle) for name in SIGNALS}
    try:
        yield
    except _Told:
        raise Interrupted(told[0]) from None
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
