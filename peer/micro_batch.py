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
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from peer.bench import run_bench
from peer.bench_plan import BenchPlan, workload_of_spec
from peer.device_facts import DeviceFacts
from peer.micro_batch_search import recommended
from peer.options import JoinOptions
from swarm.errors import OperationFailed
from swarm.spec import RunSpec

FOLDER = "micro-batch"
SEARCH_SECONDS = 4.0


@dataclass(frozen=True)
class Shape:
    """How a micro-batch is computed."""

    micro_batch_size: int
    gradient_checkpointing: bool = False


def shape_for(spec: RunSpec, facts: DeviceFacts, options: JoinOptions, say: Callable[[str], None]) -> Shape:
    """What the options say, and for the rest what is fastest on this device."""
    if options.micro_batch_size is not None:
        return Shape(options.micro_batch_size, options.gradient_checkpointing)
    found = found_shape(
        spec,
        facts,
        options.compiled,
        options.cache_dir,
        say,
        gradient_checkpointing=options.gradient_checkpointing,
    )
    return replace(
        found, gradient_checkpointing=found.gradient_checkpointing or options.gradient_checkpointing
    )


def found_shape(
    spec: RunSpec,
    facts: DeviceFacts,
    compiled: bool,
    cache_dir: Path,
    say: Callable[[str], None],
    *,
    gradient_checkpointing: bool = False,
) -> Shape:
    """The setting that `peer bench` would recommend for these choices, from the cache if it is there.

    Devices of the same name share one search.

    :param say: told in words what was found
    """
    folder = cache_dir / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{_key(spec, facts, compiled, gradient_checkpointing)}.json"
    with _locked(path.with_suffix(".lock")):
        known = _read(path)
        if known is not None:
            return known
        started = time.monotonic()
        plan = BenchPlan(
            workload_of_spec(spec),
            facts.device,
            ((facts.precision, compiled),),
            SEARCH_SECONDS,
            with_data=False,
            checkpointing="always" if gradient_checkpointing else "if needed",
        )
        try:
            best = recommended(run_bench(plan).trials)
        except OperationFailed as error:
            size = spec.training.micro_batch_size
            say(f"{error}; taking the micro-batch of {size} that the run spec names")
            return Shape(size, gradient_checkpointing)
        shape = Shape(best.micro_batch_size, best.gradient_checkpointing)
        _write(path, shape)
    recomputed = ", recomputing activations" if shape.gradient_checkpointing else ""
    say(
        f"micro-batch of {best.micro_batch_size}{recomputed} ({best.samples_per_second:.1f} samples/s alone), "
        f"found in {time.monotonic() - started:.1f} s"
    )
    return shape


def _key(spec: RunSpec, facts: DeviceFacts, compiled: bool, checkpointing: bool) -> str:
    """Of everything that the answer depends on."""
    kind = facts.device.partition(":")[0]
    machine = platform.processor() if kind == "cpu" else facts.description
    known = [spec.digest, machine, os.cpu_count(), torch.get_num_threads(), torch.__version__]
    choices = [kind, facts.precision, compiled, checkpointing]
    return hashlib.sha256(json.dumps([*known, *choices]).encode()).hexdigest()[:32]


def _read(path: Path) -> Shape | None:
    """A remembered shape; None if there is none, or if the file is damaged."""
    try:
        values = json.loads(path.read_text())
        size, checkpointing = values["micro_batch_size"], values.get("gradient_checkpointing", False)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return Shape(size, bool(checkpointing)) if isinstance(size, int) and size > 0 else None


def _write(path: Path, shape: Shape) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(asdict(shape)))
    partial.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
