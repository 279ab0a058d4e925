"""How the host's allocator treats freed memory, which is up to a fifth of a training step on a CPU.

glibc hands large blocks back to the system as soon as they are freed and asks for them anew in the next layer; the
system then clears every page again. `keep_freed_memory` makes this process keep them. Its memory in use stays at
its peak, which the next step would reach anyway. Other allocators (musl, macOS, jemalloc) are left as they are.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD, MMAP_MAX = -1, -2, -3, -4  # mallopt(3)
MIB = 2**20
NEVER_TRIM = -1


def keep_freed_memory() -> bool:
    """Let this process keep what it frees; says whether the allocator is one that listens."""
    return _set({TRIM_THRESHOLD: NEVER_TRIM, TOP_PAD: 64 * MIB, MMAP_MAX: 0})


def return_freed_memory() -> bool:
    """Back to glibc's behaviour, as it settles after a few large blocks were freed."""
    return _set({TRIM_THRESHOLD: 64 * MIB, TOP_PAD: 128 * 1024, MMAP_MAX: 65536, MMAP_THRESHOLD: 32 * MIB})


def trim() -> None:
    """Hand freed memory back to the system now (glibc only)."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _set(options: dict[int, int]) -> bool:
    with suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        answers = [mallopt(option, value) for option, value in options.items()]
        return all(answer == 1 for answer in answers)
    return False
