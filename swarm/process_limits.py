"""Limits of the operating system that a participant raises for itself."""

from __future__ import annotations

import resource

OPEN_FILES = 32768


def increase_file_limit(wanted: int = OPEN_FILES) -> None:
    """hivemind keeps 60 to 190 files open per process; raise the soft limit as far as we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard > 0 else wanted, hard))
