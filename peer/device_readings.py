"""What the driver says of our GPUs: utilisation, memory, power, temperature (NVML, through torch and nvidia-ml-py).

One process reads those of all ranks. A driver that does not answer costs the reading, nothing else; one that tells
nothing of power or temperature, as in virtual machines, only those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pynvml
import torch

from swarm.records import MAX_DEVICES, DeviceReading

MILLIWATTS = 1e3
UNREADABLE = (pynvml.NVMLError, RuntimeError, ImportError)


def read_devices(names: Sequence[str]) -> tuple[DeviceReading, ...]:
    """A reading for each GPU among these devices that can be read, at most as many as a record holds."""
    devices = [torch.device(name) for name in names[:MAX_DEVICES]]
    return tuple(_readings(device for device in devices if device.type == "cuda"))


def _readings(devices: Iterator[torch.device]) -> Iterator[DeviceReading]:
    for device in devices:
        try:
            used = torch.cuda.device_memory_used(device)
            yield DeviceReading(
                utilization=min(1.0, torch.cuda.utilization(device) / 100),
                memory=min(1.0, round(used / torch.cuda.get_device_properties(device).total_memory, 3)),
                power=_if_told(torch.cuda.power_draw, device, MILLIWATTS),
                temperature=_if_told(torch.cuda.temperature, device, 1.0),
            )
        except UNREADABLE:
            continue


def _if_told(read: Callable[[torch.device], int], device: torch.device, unit: float) -> float | None:
    try:
        return round(read(device) / unit, 1)
    except UNREADABLE:
        return None
