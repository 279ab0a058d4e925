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

from data_prep.counted import counted
from peer.available_memory import available_memory
from peer.device import choose_device, choose_precision
from peer.doctor_finding import Finding, Verdict, gib
from peer.node.devices import devices_for
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


def judge(check: str, words: str, worst: str, worse: str, fix: str, *, fails: bool, warns: bool) -> Finding:
    """What was measured, with what follows from it: `worst` if it fails, `worse` if it is only a warning."""
    if fails:
        return Finding(check, Verdict.FAIL, f"{words}{worst}", fix)
    if warns:
        return Finding(check, Verdict.WARN, f"{words}{worse}", fix)
    return Finding(check, Verdict.OK, words)


def check_open_files() -> Finding:
    """How many files a process may open; `peer join` raises the soft limit up to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reachable = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, max(soft, OPEN_FILES))
    return judge(
        "open files",
        f"a process may open {reachable} files",
        f", and libp2p and hivemind need {MIN_OPEN_FILES}",
        ", too few for a swarm of hundreds",
        f"allow {OPEN_FILES}: `ulimit -n`, LimitNOFILE= of a systemd unit, --ulimit nofile= of Docker",
        fails=reachable < MIN_OPEN_FILES,
        warns=reachable < ENOUGH_OPEN_FILES,
    )


def check_shared_memory(folder: Path = SHARED_MEMORY) -> Finding:
    """Whether hivemind's processes can share tensors."""
    fix = "give the container more: --shm-size=2g of Docker, an emptyDir with medium: Memory in Kubernetes"
    try:
        _write_and_delete(folder)
        usage = shutil.disk_usage(folder)
    except OSError as error:
        words = f"{folder} cannot be written to ({error.strerror}), and hivemind's processes share tensors through it"
        return Finding("shared memory", Verdict.FAIL, words, fix)
    return judge(
        "shared memory",
        f"{folder} has {gib(usage.free)} free of {gib(usage.total)}",
        ": too little for any model",
        ": enough for a small model only",
        fix,
        fails=usage.free < MIN_SHARED_BYTES,
        warns=usage.free < ENOUGH_SHARED_BYTES,
    )


def check_memory() -> Finding:
    """Memory that is free for us, the container's limits included."""
    free = available_memory(torch.device("cpu"))
    return judge(
        "memory",
        f"{gib(free)} of memory are free",
        f"; a peer of a small model takes {gib(MIN_MEMORY_BYTES)}",
        ": enough for a small model only",
        "close other programs, or raise the container's limit",
        fails=free < MIN_MEMORY_BYTES,
        warns=free < ENOUGH_MEMORY_BYTES,
    )


def check_cache(folder: Path) -> Finding:
    """The disk under the folder for downloaded bundles and identities."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_and_delete(folder)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        words = f"the cache folder {folder} cannot be used ({error.strerror})"
        return Finding("cache folder", Verdict.FAIL, words, "choose another with --cache-dir")
    return judge(
        "cache folder",
        f"the cache folder {folder} has {gib(free)} free",
        ": too little for a run's text",
        ": enough for a small run only",
        "make room, or choose a folder on another disk with --cache-dir",
        fails=free < MIN_DISK_BYTES,
        warns=free < ENOUGH_DISK_BYTES,
    )


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


def check_device(wanted: str | None, ranks: int | None = None) -> Finding:
    """The devices that `peer join` would compute on, and whether torch can use what the driver has."""
    gpus = gpus_of_the_driver()
    try:
        names = devices_for(wanted, ranks)
        device = choose_device(names[0])
    except BadInput as error:
        words, _, fix = str(error).partition("; ")
        return Finding("device", Verdict.FAIL, words, _fix_for(gpus) if gpus else fix or "leave --device out")
    if device.type == "cuda":
        return _check_gpus(names)
    if gpus and wanted is None:
        words = (
            f"the driver ({gpus[0].driver}) has {_count(gpus)}, but torch {torch.__version__} cannot use it"
        )
        return Finding("device", Verdict.WARN, words, _fix_for(gpus))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    trains = "trains" if len(names) == 1 else f"{len(names)} ranks train"
    return Finding(
        "device",
        Verdict.OK,
        f"{trains} on the CPU, {counted(cores or 1, 'core')}, in {choose_precision(None, device)}",
    )


def _check_gpus(names: Sequence[str]) -> Finding:
    """Whether all of these GPUs answer, and this build of torch has kernels for them."""
    answering = [torch.device(name) for name in names if _answers(name)]
    silent = [name for name in names if torch.device(name) not in answering]
    broken = "see `nvidia-smi -q` and `dmesg`; reset it, or reboot"
    if not answering:
        return Finding("device", Verdict.FAIL, f"{', '.join(silent)} cannot be used", broken)
    kinds = {torch.cuda.get_device_capability(device) for device in answering}
    models = ", ".join(sorted({torch.cuda.get_device_name(device) for device in answering}))
    words = f"{len(answering)} x {models}, at least {gib(min(map(available_memory, answering)))} free on each"
    if without := sorted(f"sm_{major}{minor}" for major, minor in kinds if not _has_kernels(major, minor)):
        words += f", but torch {torch.__version__} has no kernels for {', '.join(without)}"
        return Finding(
            "device", Verdict.FAIL, words, "install the build of torch for CUDA 12.6, the last with V100's"
        )
    if silent:
        words += f"; {', '.join(silent)} cannot be used, and a peer goes on without"
        return Finding("device", Verdict.WARN, words, broken)
    return Finding("device", Verdict.OK, f"{words}, in {choose_precision(None, answering[0])}")


def _answers(name: str) -> bool:
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError):  # CUDA says so of a device that is gone or broken
        return False
    return True


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
