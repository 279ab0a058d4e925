"""The micro-batch size of `peer join` where none is given: measured once for this machine and run, then remembered.

Peers that start together on one machine wait for the one that measures: measuring at the same time, each would find
the other's share of the machine. A machine that cannot be measured uses the run spec's size.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from peer.bench import run_bench
from peer.bench_plan import BenchPlan, workload_of_spec
from peer.micro_batch_search import recommended
from swarm.errors import OperationFailed
from swarm.spec import RunSpec

FOLDER = "micro-batch"
SEARCH_SECONDS = 4.0


def micro_batch_size_for(
    spec: RunSpec,
    device: torch.device,
    precision: str,
    compiled: bool,
    cache_dir: Path,
    say: Callable[[str], None],
) -> int:
    """The size that `peer bench` would recommend for these choices, from the cache if it is there.

    :param say: told in words what was found
    """
    folder = cache_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_key(spec, device, precision, compiled)}.json"
    with _locked(path.with_suffix(".lock")):
        known = _read(path)
        if known is not None:
            return known
        started = time.monotonic()
        plan = BenchPlan(
            workload_of_spec(spec), str(device), ((precision, compiled),), SEARCH_SECONDS, with_data=False
        )
        try:
            best = recommended(run_bench(plan).trials)
        except OperationFailed as error:
            size = spec.training.micro_batch_size
            say(f"{error}; taking the micro-batch of {size} that the run spec names")
            return size
        _write(path, best.micro_batch_size)
    say(
        f"micro-batch of {best.micro_batch_size} ({best.samples_per_second:.1f} samples/s alone), "
        f"found in {time.monotonic() - started:.1f} s"
    )
    return best.micro_batch_size


def _key(spec: RunSpec, device: torch.device, precision: str, compiled: bool) -> str:
    """Of everything that the answer depends on."""
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    facts = [spec.digest, machine, os.cpu_count(), torch.get_num_threads(), torch.__version__]
    return hashlib.sha256(json.dumps([*facts, str(device), precision, compiled]).encode()).hexdigest()[:32]


def _read(path: Path) -> int | None:
    """A remembered size; None if there is none, or if the file is damaged."""
    try:
        size = json.loads(path.read_text())["micro_batch_size"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return size if isinstance(size, int) and size > 0 else None


def _write(path: Path, size: int) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({"micro_batch_size": size}))
    partial.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
