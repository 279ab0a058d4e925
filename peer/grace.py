"""Being told to go, and the grace period that begins with it.

A signal (SIGTERM, SIGINT, SIGUSR1 as Slurm sends it) or a preemption notice sets `requested`; the peer then has
`seconds` to leave politely. Whatever it is doing when they are over, its process ends with exit code 0. A second
signal ends it at once. Children of the process die with it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from types import FrameType

SIGNALS = ("SIGTERM", "SIGINT", "SIGUSR1")
# what is left of the grace period for the last word
FAREWELL_SECONDS = 2.5
DEFAULT_GRACE_SECONDS = 30.0


class Grace:
    """Knows whether this peer has been told to go, and how long it may still take.

    The handler of a signal only writes to a pipe: it may interrupt any code, so it must not take a lock.

    >>> grace = Grace(seconds=30.0)
    >>> grace.requested.is_set(), grace.remaining
    (False, 30.0)
    """

    def __init__(self, seconds: float):
        self.seconds = seconds
        self.requested = threading.Event()
        self.reason = ""
        # set as soon as there is somebody to say goodbye for
        self.farewell: Callable[[], None] | None = None
        self._deadline: float | None = None
        self._signals = 0
        self._lock = threading.Lock()
        self._reader, self._writer = os.pipe()

    @property
    def remaining(self) -> float:
        """Seconds until the farewell must be said; all of the period before anybody told us to go."""
        if self._deadline is None:
            return self.seconds
        return max(0.0, self._deadline - FAREWELL_SECONDS - time.monotonic())

    def start(self, *, signals: bool = True) -> None:
        """Listen to signals from now on; call in the main thread, after the child processes were forked.

        :param signals: False if somebody else listens to them and calls `request`
        """
        threading.Thread(target=self._run, name="grace", daemon=True).start()
        for name in SIGNALS if signals else ():
            signal.signal(getattr(signal, name), self._handle)

    def request(self, reason: str) -> None:
        """Tell this peer to go."""
        os.write(self._writer, reason.encode()[:200])

    def take_farewell(self) -> Callable[[], None] | None:
        """The farewell, for the one who asks first: it is said once, in time by the peer, else when time is over."""
        with self._lock:
            farewell, self.farewell = self.farewell, None
        return farewell

    def _handle(self, signum: int, _frame: FrameType | None) -> None:
        self._signals += 1
        if self._signals > 1:
            os._exit(128 + signum)
        self.request(f"told to go by {signal.Signals(signum).name}")

    def _run(self) -> None:
        self.reason = os.read(self._reader, 200).decode()
        self._deadline = time.monotonic() + self.seconds
        self.requested.set()
        time.sleep(max(0.0, self.seconds - FAREWELL_SECONDS))
        # as a daemon: a farewell that hangs must not outlive the grace period
        last_word = threading.Thread(target=self._say_farewell, name="farewell", daemon=True)
        last_word.start()
        last_word.join(FAREWELL_SECONDS - 0.5)
        os._exit(0)

    def _say_farewell(self) -> None:
        if (farewell := self.take_farewell()) is not None:
            farewell()


def end_at_once_when_told() -> None:
    """Before a peer has joined there is nothing to lose: the first signal ends the process."""

    def handle(_signum: int, _frame: FrameType | None) -> None:
        os._exit(0)

    for name in SIGNALS:
        signal.signal(getattr(signal, name), handle)
