"""Processor time and memory of a coordinator's processes, by what they are, from /proc."""

from __future__ import annotations

import contextlib
import os
import re
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

ByProcess = dict[str, float]


def cpu_seconds(pid: int) -> ByProcess:
    """User and system time of a process and its descendants."""
    tick = os.sysconf("SC_CLK_TCK")
    found: ByProcess = {}
    for name, each in _named_family(pid):
        with contextlib.suppress(OSError):  # it has just ended
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / tick
    return found


def memory_mib(pid: int) -> ByProcess:
    """Anonymous and shared memory of a process and its descendants, each page once.

    That is the proportional set size without mapped files: the kernel shares the libraries' pages with whoever uses
    the same files, and with how many others that is, a process's part of them changes.
    """
    found: ByProcess = {}
    for name, each in _named_family(pid):
        with contextlib.suppress(OSError):
            text = Path(f"/proc/{each}/smaps_rollup").read_text()
            sizes = re.findall(r"^Pss_(?:Anon|Shmem):\s+(\d+)", text, re.MULTILINE)
            found[name] = found.get(name, 0.0) + sum(map(int, sizes)) / 1024
    return found


def trend(seconds: Sequence[float], values: Sequence[float]) -> float:
    """What is added in an hour, by least squares; needs two different moments.

    >>> trend([0, 1800, 3600], [100.0, 101.0, 102.0])
    2.0
    """
    return 3600 * statistics.linear_regression(seconds, values).slope


def _named_family(pid: int) -> Iterator[tuple[str, int]]:
    """The coordinator's processes; of the forked ones, the DHT is the one with a daemon."""
    yield "tracker, page, control", pid
    for child in _children(pid):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_text()
            daemons = _children(child)
            if "checkpoint_process" in command:
                yield "checkpoints", child
            elif "resource_tracker" not in command:
                yield ("DHT" if daemons else "averager"), child
                yield from (("libp2p daemon", daemon) for daemon in daemons)


def _children(pid: int) -> list[int]:
    listings = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for listing in listings for child in listing.read_text().split())
