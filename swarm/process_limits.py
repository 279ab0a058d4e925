"""What a participant asks of the operating system for itself: open files, and how little it wants to disturb."""

from __future__ import annotations

import os
import resource

OPEN_FILES = 32768
NICENESS = 5


def increase_file_limit(wanted: int = OPEN_FILES) -> None:
    """hivemind keeps 60 to 190 files open per process; raise the soft limit as far as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard > 0 else wanted, hard))


def yield_to_others() -> None:
    """Let this thread, and those it starts, compute only what nobody else on this machine wants to.

    Computing is what a machine has to spare; averaging and the DHT are other processes, and others wait for those.
    """
    if hasattr(os, "nice"):
        os.nice(NICENESS)
