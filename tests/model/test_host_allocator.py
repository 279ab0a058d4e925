"""Whether the allocator listens; what it brings depends on the heap's history, and is measured by `train_step`."""

from __future__ import annotations

import platform

from model.host_allocator import keep_freed_memory, return_freed_memory


def test_glibc_takes_the_settings_and_their_withdrawal_and_others_say_no():
    is_glibc = platform.libc_ver()[0] == "glibc"
    try:
        assert keep_freed_memory() is is_glibc
    finally:
        assert return_freed_memory() is is_glibc
