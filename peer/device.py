"""Which device a peer computes on, in which precision, and what is set for it."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec

import torch

from model.fp32_matmul import allow_onednn_fp32
from model.host_allocator import keep_freed_memory
from model.training_step import compile_layers
from peer.device_facts import DeviceFacts
from peer.forked_call import in_a_fork
from swarm.errors import BadInput

JOIN_PRECISIONS = ("fp32", "bf16", "fp16")
# the first GPUs whose matrix units compute in fp16
TENSOR_CORES_SINCE = (7, 0)
LOOK_SECONDS = 60.0


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
    """bf16 where the hardware has it, else fp16 on GPUs with tensor cores (Volta), else fp32; unless told.

    fp16 is trained with loss scaling, see `peer.loss_scale`.

    :raises BadInput: a precision that nobody trains in, or that this device cannot
    """
    if wanted is not None:
        if wanted not in JOIN_PRECISIONS:
            raise BadInput(f"--precision {wanted} is not one of {', '.join(JOIN_PRECISIONS)}")
        return wanted
    if device.type == "cuda":
        # without emulation: Volta can be made to compute in bf16, many times slower than in fp16
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16"
        return "fp16" if torch.cuda.get_device_capability(device) >= TENSOR_CORES_SINCE else "fp32"
    return "bf16" if device.type == "cpu" and has_cpu_bf16() else "fp32"


def has_cpu_bf16() -> bool:
    """Whether this processor multiplies bf16 matrices itself (AVX-512 BF16, AMX); others only emulate it."""
    return getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)()


def inspect_device(device: torch.device, precision: str | None) -> DeviceFacts:
    """What we need to know of a device; starts CUDA on it. Raises `BadInput` for a precision it does not have."""
    return DeviceFacts(str(device), describe_device(device), choose_precision(precision, device))


def find_device(wanted: str | None, precision: str | None) -> DeviceFacts:
    """`inspect_device` of `choose_device`, for a process that hivemind will fork from: starts no CUDA in it.

    A GPU is looked at by another process. Only if that fails, as it does where counting GPUs starts CUDA, by this one.
    """
    if wanted is None:
        # by the driver's library where it can, which starts nothing
        wanted = "cuda" if torch.cuda.device_count() else "cpu"
    if wanted.startswith("cuda"):
        try:
            with in_a_fork(_look_at, wanted, precision, seconds=LOOK_SECONDS, forked_by="fork") as found:
                if found is not None:
                    return found
        except (TimeoutError, EOFError):
            pass
    return inspect_device(choose_device(wanted), precision)


def _look_at(wanted: str, precision: str | None) -> DeviceFacts | None:
    """None for what this process cannot use."""
    try:
        return inspect_device(choose_device(wanted), precision)
    except (BadInput, RuntimeError):
        return None


def compute_on(device: torch.device) -> None:
    """Make it this process's own: what NCCL, kernels and allocations are not told otherwise goes to it.

    Starts CUDA, so call it after hivemind has forked, and before the ranks connect.
    """
    if device.type == "cuda" and device.index is not None:
        torch.cuda.set_device(device)


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
