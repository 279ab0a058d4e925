"""Which devices of this machine the ranks of a node compute on, and which of them can be used."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from peer.device_facts import DeviceFacts
from swarm.errors import ArtelError, BadInput

# far more than anybody has a use for; without a limit a slip of the finger fills the memory of a machine
MOST_ON_CPU = 64


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
        most = max(MOST_ON_CPU, os.cpu_count() or 1)
        if (ranks or 1) > most:
            raise BadInput(f"--ranks {ranks}: each takes memory as a peer does; give at most {most} on a CPU")
        return ["cpu"] * (ranks or 1)
    if device != "cuda":
        if (ranks or 1) > 1:
            raise BadInput(
                f"--ranks {ranks} on the one device {device}: give --device cuda, or leave --ranks out"
            )
        return [device]
    if (ranks or 1) > max(1, gpus):
        seen = f"only {gpus} GPUs are" if gpus > 1 else "only one GPU is" if gpus else "no GPU is"
        fix = f"give --ranks {gpus}" if gpus else "give --device cpu, or see `peer doctor`"
        raise BadInput(f"--ranks {ranks}: {seen} visible here; {fix}")
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
