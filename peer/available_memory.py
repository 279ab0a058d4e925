"""How many bytes this process could still allocate: of the accelerator, or of the machine and its container."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
CGROUP_V2 = Path("/sys/fs/cgroup")
CGROUP_V1 = Path("/sys/fs/cgroup/memory")


def available_memory(device: torch.device) -> int:
    """Bytes free for us now; on a system that does not tell, half of its memory."""
    if device.type == "cuda":
        free, _total = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    machine = _meminfo("MemAvailable")
    if machine is None:
        machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return min(machine, *_left_in_container()) if _left_in_container() else machine


def _meminfo(field: str) -> int | None:
    with suppress(OSError):
        match = re.search(rf"^{field}:\s+(\d+) kB", MEMINFO.read_text(), re.MULTILINE)
        return int(match[1]) * 1024 if match else None
    return None


def _left_in_container() -> list[int]:
    """What the limits of our control group leave; the kernel gives back cached files before it kills."""
    left = []
    for folder, limit, usage, cached in (
        (CGROUP_V2, "memory.max", "memory.current", "inactive_file"),
        (CGROUP_V1, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        with suppress(OSError, ValueError):
            allowed, used = (int((folder / name).read_text()) for name in (limit, usage))
            match = re.search(rf"^{cached} (\d+)", (folder / "memory.stat").read_text(), re.MULTILINE)
            left.append(max(0, allowed - used + (int(match[1]) if match else 0)))
    return left
