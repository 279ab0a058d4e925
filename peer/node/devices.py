"""Which devices of this machine the ranks of a node compute on, and which of them can be used."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from peer.device_facts import DeviceFacts
from swarm.errors import ArtelError, BadInput


def devices_for(device: str | None, ranks: int | None) -> list[str]:
    """The name of a device per rank; raises `BadInput` for more ranks than there are devices.

    Starts nothing of CUDA in this process. What cannot be used is found out later.

    :param device: `cpu`, `cuda` for all GPUs, `cuda:1`; None for all GPUs, or the CPU if there is none
    :param ranks: how many of them; None for all, which is one for the CPU
    """
    gpus = torch.cuda.device_count() if device is None or device == "cuda" else 0
    if device is None:
        device = "cuda" if gpus else "cpu"
    if device == "cpu":
        return ["cpu"] * (ranks or 1)
    if device != "cuda":
        if (ranks or 1) > 1:
            raise BadInput(
                f"--ranks {ranks} on the one device {device}: give --device cuda, or leave --ranks out"
            )
        return [device]
    if (ranks or 1) > max(1, gpus):
        raise BadInput(f"--ranks {ranks}: only {gpus} GPUs are visible here; give --ranks {max(1, gpus)}")
    return [f"cuda:{index}" for index in range(ranks or gpus)] or ["cuda"]


def probe(devices: Sequence[str], precision: str | None) -> list[DeviceFacts] | ArtelError:
    """What those that can be used are; for a process of its own, because it starts CUDA."""
    # imported here because the supervisor, which asks, would wait for it
    from peer.device import inspect_device

    ready = []
    for name in devices:
        try:
            device = torch.device(name)
            torch.zeros(1, device=device)
            ready.append(inspect_device(device, precision))
        except BadInput as error:
            return error
        except (RuntimeError, AssertionError):  # CUDA says so of a device that is gone or broken
            continue
    return ready
