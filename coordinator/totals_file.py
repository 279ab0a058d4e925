"""Keeps the totals in `totals.json`: now and then, because nothing is lost by that but time.

After a crash the totals go on from the last counters in the file, so a peer that is still there is credited what the
file has missed, once. Of a peer that went or started anew in those seconds, its last samples before that are lost.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path

from coordinator.totals import Totals
from swarm.whole_file import write_whole

logger = logging.getLogger(__name__)

KEEP_EVERY_SECONDS = 10.0


class TotalsFile:
    """The totals of a run and their file; for the one thread that tracks.

    :param clock: seconds that pass while the coordinator runs

    >>> file = TotalsFile(directory.totals_path)                                     # doctest: +SKIP
    >>> file.totals.count(peer_id, counters); file.keep()                            # doctest: +SKIP
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.path, self._clock = path, clock
        self.totals = Totals.load(path)
        self._in_file = dict(self.totals.last)
        self._kept_at = clock()

    def keep(self) -> None:
        """Call after every look: writes what has changed if it is time to; raises `OSError`."""
        if self._clock() - self._kept_at >= KEEP_EVERY_SECONDS:
            self._write()

    def close(self) -> None:
        """Write what has changed; a disk that refuses is told in the log."""
        try:
            self._write()
        except OSError as error:
            logger.warning(
                "%s cannot be written (%s): its newest samples are lost", self.path, error.strerror
            )

    def _write(self) -> None:
        now = self._clock()
        self.totals.age(now - self._kept_at)
        self._kept_at = now
        if self.totals.last != self._in_file:
            write_whole(self.path, self.totals.model_dump_json().encode())
            self._in_file = dict(self.totals.last)
