"""Notices that this process did not run for a while: a suspended laptop, SIGSTOP, a frozen virtual machine.

Whatever a peer holds then is stale: the swarm has gone on without it, and it must reload before it takes part again.
"""

from __future__ import annotations

import threading
import time

TICK_SECONDS = 0.25


class SuspensionWatch:
    """A thread that looks at the clock; a gap between two looks is time in which nothing here ran.

    :param threshold: seconds of silence after which the others take us for dead

    >>> watch = SuspensionWatch(threshold=4.0)
    >>> watch.seconds, watch.take()
    (0.0, 0.0)
    """

    def __init__(self, threshold: float):
        self.threshold = threshold
        self._lock = threading.Lock()
        self._last_look = now()
        self._suspended_for = 0.0
        self._thread = threading.Thread(target=self._run, name="suspension", daemon=True)

    def start(self) -> None:
        """Begin to watch; ends with the process."""
        with self._lock:
            self._last_look = now()
        self._thread.start()

    @property
    def seconds(self) -> float:
        """Seconds of suspension that nobody has taken yet; 0.0 if this process always ran."""
        with self._lock:
            self._look()
            return self._suspended_for

    def take(self) -> float:
        """The same, and forget it: to be called when everything stale is about to be thrown away."""
        with self._lock:
            self._look()
            seconds, self._suspended_for = self._suspended_for, 0.0
            return seconds

    def _run(self) -> None:
        while True:
            time.sleep(TICK_SECONDS)
            with self._lock:
                self._look()

    def _look(self) -> None:
        moment = now()
        if moment - self._last_look > self.threshold:
            self._suspended_for += moment - self._last_look
        self._last_look = moment


def now() -> float:
    """Seconds on a clock that goes on while the machine sleeps; on Linux, one that nobody sets."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time()
