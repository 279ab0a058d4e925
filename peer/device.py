"""Which device a peer computes on, in which precision, and what is set for it."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import torch

from model.fp32_matmul import allow_onednn_fp32
from model.host_allocator import keep_freed_memory
from model.training_step import compile_layers
from swarm.errors import BadInput

JOIN_PRECISIONS = ("fp32", "bf16")


def choose_device(wanted: str | None) -> torch.device:
    """The device asked for, or a GPU if there is one; raises `BadInput` for a device that is not there."""
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(
            f"--device {wanted} cannot be used ({reason}): try `cpu`, or `cuda` on a machine with a GPU"
        ) from None
    return device


def describe_device(device: torch.device) -> str:
    """What the peer record says of the hardware."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def choose_precision(wanted: str | None, device: torch.device) -> str:
    """bf16 where a GPU has it, fp32 elsewhere, unless told; raises `BadInput` for a precision nobody trains in.

    fp16 is not among them: it needs loss scaling, and a peer's gradients must not depend on a scale of its own.
    """
    if wanted is None:
        return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if wanted not in JOIN_PRECISIONS:
        raise BadInput(f"--precision {wanted} is not one of {', '.join(JOIN_PRECISIONS)}")
    return wanted


def can_compile(device: torch.device) -> bool:
    """Whether torch.compile finds what it needs: a C++ compiler for a CPU, triton for a GPU."""
    if device.type == "cuda":
        return find_spec("triton") is not None
    return any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", "clang++"))


def require_compiler(device: torch.device) -> None:
    """Raise `BadInput` where `--compile` would fail at the first micro-batch."""
    if not can_compile(device):
        raise BadInput("--compile needs a C++ compiler (or triton on a GPU): install g++, or leave it out")


def prepare_compute(model: torch.nn.Module, device: torch.device, *, compiled: bool) -> None:
    """Settings of this process that make micro-batches faster; call after hivemind has forked: they are for us only."""
    if device.type == "cpu":
        allow_onednn_fp32()
        keep_freed_memory()
    if compiled:
        compile_layers(model)
