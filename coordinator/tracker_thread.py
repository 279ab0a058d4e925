"""The thread that looks at the swarm again and again, and writes down what it sees.

A look that fails is logged and made again: what one peer says must not end a run's coordinator. While none goes well
the page shows that its status stands still; after `PATIENCE_SECONDS` of that the coordinator ends with the reason.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from swarm.errors import OperationFailed

logger = logging.getLogger(__name__)

PATIENCE_SECONDS = 600.0


class TrackerThread:
    """Looks every `period` seconds, from beginning to beginning.

    :param stop: ends it; set by the thread itself once it has lost patience
    """

    def __init__(self, look: Callable[[], None], period: float, stop: threading.Event):
        self._look, self._period, self._stop = look, period, stop
        self._failing_since: float | None = None
        self._lost: Exception | None = None
        self._thread = threading.Thread(target=self._run, name="tracker", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def join(self, timeout: float) -> None:
        """Wait for the end of the look in hand, after `stop` was set."""
        self._thread.join(timeout)

    def require_sound(self) -> None:
        """Raise `OperationFailed` if looking has failed for good."""
        if self._lost is not None:
            words = str(self._lost) or type(self._lost).__name__
            raise OperationFailed(
                f"the tracker has failed ({words}): start the coordinator again, it goes on from its last state"
            ) from self._lost

    def _run(self) -> None:
        while not self._stop.is_set():
            started = time.monotonic()
            try:
                self._look()
                self._failing_since = None
            except Exception as error:
                self._note(error)
            # a machine that is too slow for the period must not spend all its time here
            self._stop.wait(max(self._period / 4, started + self._period - time.monotonic()))

    def _note(self, error: Exception) -> None:
        logger.warning("a look at the swarm failed (%r) and is made again; --debug shows where", error)
        logger.debug("it failed here", exc_info=True)
        now = time.monotonic()
        self._failing_since = now if self._failing_since is None else self._failing_since
        if now - self._failing_since > PATIENCE_SECONDS:
            self._lost = error
            self._stop.set()
