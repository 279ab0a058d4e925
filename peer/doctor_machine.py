"""What of this machine `peer doctor` looks at: open files, shared memory, memory, disk, devices and their driver.

The limits come from what peers use: 60 to 190 open files a process, 0.9 GiB in all for a small model, and a copy of
the averaged tensors in /dev/shm.
"""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from peer.available_memory import available_memory
from peer.device import choose_device, choose_precision
from peer.doctor_finding import Finding, Verdict, gib
from swarm.errors import BadInput
from swarm.process_limits import OPEN_FILES

MIN_OPEN_FILES = 512
ENOUGH_OPEN_FILES = 4096
SHARED_MEMORY = Path("/dev/shm")
MIN_SHARED_BYTES = 16 * 2**20
ENOUGH_SHARED_BYTES = 2**30
MIN_MEMORY_BYTES = 2**30
ENOUGH_MEMORY_BYTES = 2 * 2**30
MIN_DISK_BYTES = 200 * 2**20
ENOUGH_DISK_BYTES = 5 * 2**30
NVIDIA_SMI = ("nvidia-smi", "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader")
NVIDIA_SMI_SECONDS = 30.0


def check_open_files() -> Finding:
    """How many files a process may open; `peer join` raises the soft limit up to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reachable = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, max(soft, OPEN_FILES))
    words = f"a process may open {reachable} files"
    fix = f"allow {OPEN_FILES}: `ulimit -n`, LimitNOFILE= of a systemd unit, --ulimit nofile= of Docker"
    if reachable < MIN_OPEN_FILES:
        return Finding(
            "open files", Verdict.FAIL, f"{words}, and libp2p and hivemind need {MIN_OPEN_FILES}", fix
        )
    if reachable < ENOUGH_OPEN_FILES:
        return Finding("open files", Verdict.WARN, f"{words}, too few for a swarm of hundreds", fix)
    return Finding("open files", Verdict.OK, words)


def check_shared_memory(folder: Path = SHARED_MEMORY) -> Finding:
    """Whether hivemind's processes can share tensors."""
    fix = "give the container more: --shm-size=2g of Docker, an emptyDir with medium: Memory in Kubernetes"
    try:
        _write_and_delete(folder)
        usage = shutil.disk_usage(folder)
    except OSError as error:
        words = f"{folder} cannot be written to ({error.strerror}), and hivemind's processes share tensors through it"
        return Finding("shared memory", Verdict.FAIL, words, fix)
    words = f"{folder} has {gib(usage.free)} free of {gib(usage.total)}"
    if usage.free < MIN_SHARED_BYTES:
        return Finding("shared memory", Verdict.FAIL, f"{words}: too little for any model", fix)
    if usage.free < ENOUGH_SHARED_BYTES:
        return Finding("shared memory", Verdict.WARN, f"{words}: enough for a small model only", fix)
    return Finding("shared memory", Verdict.OK, words)


def check_memory() -> Finding:
    """Memory that is free for us, the container's limits included."""
    free = available_memory(torch.device("cpu"))
    words = f"{gib(free)} of memory are free"
    fix = "close other programs, or raise the container's limit"
    if free < MIN_MEMORY_BYTES:
        return Finding(
            "memory", Verdict.FAIL, f"{words}; a peer of a small model takes {gib(MIN_MEMORY_BYTES)}", fix
        )
    if free < ENOUGH_MEMORY_BYTES:
        return Finding("memory", Verdict.WARN, f"{words}: enough for a small model only", fix)
    return Finding("memory", Verdict.OK, words)


def check_cache(folder: Path) -> Finding:
    """The disk under the folder for downloaded bundles and identities."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_and_delete(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        words = f"the cache folder {folder} cannot be used ({error.strerror})"
        return Finding("cache folder", Verdict.FAIL, words, "choose another with --cache-dir")
    words = f"the cache folder {folder} has {gib(free)} free"
    fix = "make room, or choose a folder on another disk with --cache-dir"
    if free < MIN_DISK_BYTES:
        return Finding("cache folder", Verdict.FAIL, f"{words}: too little for a run's text", fix)
    if free < ENOUGH_DISK_BYTES:
        return Finding("cache folder", Verdict.WARN, f"{words}: enough for a small run only", fix)
    return Finding("cache folder", Verdict.OK, words)


@dataclass(frozen=True)
class Gpu:
    """A GPU as the driver names it."""

    name: str
    driver: str
    capability: str


def gpus_of_the_driver(command: Sequence[str] = NVIDIA_SMI) -> list[Gpu]:
    """What `nvidia-smi` lists; nothing where it is not installed or fails."""
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=NVIDIA_SMI_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return []
    rows = [[field.strip() for field in line.split(",")] for line in answer.stdout.splitlines()]
    return [Gpu(*row) for row in rows if len(row) == 3]


def check_device(wanted: str | None) -> Finding:
    """The device that `peer join` would compute on, and whether torch can use what the driver has."""
    gpus = gpus_of_the_driver()
    try:
        device = choose_device(wanted)
    except BadInput as error:
        return Finding("device", Verdict.FAIL, str(error), _fix_for(gpus) if gpus else "leave --device out")
    if device.type == "cuda":
        return _check_gpus(device)
    if gpus and wanted is None:
        words = (
            f"the driver ({gpus[0].driver}) has {_count(gpus)}, but torch {torch.__version__} cannot use it"
        )
        return Finding("device", Verdict.WARN, words, _fix_for(gpus))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return Finding("device", Verdict.OK, f"trains on the CPU, {cores} cores, in fp32")


def _check_gpus(device: torch.device) -> Finding:
    """Whether this build of torch has kernels for the GPUs that it sees."""
    kinds = [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]
    names = sorted({torch.cuda.get_device_name(index) for index in range(len(kinds))})
    words = f"{len(kinds)} x {', '.join(names)}, {gib(available_memory(device))} free on {device}"
    without = sorted({f"sm_{major}{minor}" for major, minor in kinds if not _has_kernels(major, minor)})
    if without:
        words += f", but torch {torch.__version__} has no kernels for {', '.join(without)}"
        return Finding(
            "device", Verdict.FAIL, words, "install the build of torch for CUDA 12.6, the last with V100's"
        )
    return Finding("device", Verdict.OK, f"{words}, in {choose_precision(None, device)}")


def _has_kernels(major: int, minor: int) -> bool:
    """Binary code runs on newer GPUs of the same major version; PTX (`compute_…`) on all newer ones."""
    for architecture in torch.cuda.get_arch_list():
        kind, _, number = architecture.partition("_")
        digits = "".join(character for character in number if character.isdigit())
        built = (int(digits[:-1]), int(digits[-1]))
        if built <= (major, minor) and (kind == "compute" or built[0] == major):
            return True
    return False


def _fix_for(gpus: Sequence[Gpu]) -> str:
    old = any(float(gpu.capability or 0) < 7.5 for gpu in gpus if gpu.capability.replace(".", "").isdigit())
    build = "CUDA 12.6, the last with kernels for it" if old else "a CUDA version that this driver knows"
    return (
        f"install the build of torch for {build}; in a container, start it with the GPUs (--gpus all, --nv)"
    )


def _count(gpus: Sequence[Gpu]) -> str:
    return f"{len(gpus)} x {', '.join(sorted({gpu.name for gpu in gpus}))}"


def _write_and_delete(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".artel-doctor-") as file:
        file.write(bytes(2**20))
        file.flush()
