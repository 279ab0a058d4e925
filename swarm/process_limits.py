"""What a participant asks of the operating system for itself: open files, and how little it wants to disturb."""

from __future__ import annotations

import contextlib
import os
import resource
from pathlib import Path

OPEN_FILES = 32768
NICENESS = 5
AUTOGROUP = Path("/proc/self/autogroup")


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
    if os.getsid(0) == os.getpid():
        # Linux weighs whole sessions against each other, and a thread's niceness only within its own: see sched(7).
        # Of a session that is not ours alone, such as a shell's, we leave the weight as it is.
        with contextlib.suppress(OSError):
            AUTOGROUP.write_text(str(NICENESS))
