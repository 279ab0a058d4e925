"""The highest memory use since a moment: of the accelerator's allocator, or of this process.

For the process, Linux keeps a high-water mark of the resident set that can be reset; where it cannot
(other systems, locked-down containers) the mark of the whole process life stands in, an upper bound.
"""

from __future__ import annotations

import gc
import resource
import sys
from contextlib import suppress
from pathlib import Path

import torch

from model.host_allocator import trim

STATUS = Path("/proc/self/status")
CLEAR_REFS = Path("/proc/self/clear_refs")
RESET_PEAK = "5"


class PeakMemory:
    """Watches from its creation on; `peak_bytes` is what came on top of the use at that moment.

    Example:
        >>> memory = PeakMemory("cpu")
        >>> block = torch.zeros(2**20)
        >>> memory.peak_bytes() >= 2**22
        True
    """

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
            self._start = torch.cuda.memory_allocated(self.device)
            return
        trim()
        with suppress(OSError):
            CLEAR_REFS.write_text(RESET_PEAK)
        self._start = _resident("VmRSS")

    def peak_bytes(self) -> int:
        """Bytes in use at the peak, less those in use at the start."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) - self._start
        return max(0, _resident("VmHWM") - self._start)


def _resident(field: str) -> int:
    with suppress(OSError):
        for line in STATUS.read_text().splitlines():
            if line.startswith(field):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
