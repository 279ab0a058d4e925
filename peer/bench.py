"""What this machine can do for a run: samples/s by micro-batch size, precision and compilation, and what to choose.

The measuring happens in a child process (`peer.bench_process`) that dies with this one. A child that was killed, by
the system for its memory or by us for its time, has still told what it measured before.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from tempfile import TemporaryFile
from typing import IO, Any

from peer.bench_plan import BenchPlan
from peer.micro_batch_search import Trial, recommended
from swarm.errors import OperationFailed
from swarm.lifeline import set_parent_death_signal

# beside the search itself: start of Python and torch, a first step; and for every setting that is compiled
PATIENCE_SECONDS, COMPILATION_SECONDS = 120.0, 180.0
MIB = 2**20


@dataclass
class BenchReport:
    """All that was measured. `waiting` is the share of the time that a peer would wait for data; None if unknown."""

    device: str
    sequence_length: int
    trials: list[Trial] = field(default_factory=list)
    stopped: list[dict[str, Any]] = field(default_factory=list)
    waiting: float | None = None

    @property
    def recommended(self) -> Trial:
        """The setting to choose."""
        return recommended(self.trials)

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "device": self.device,
            "sequence_length": self.sequence_length,
            "trials": [asdict(trial) for trial in self.trials],
            "stopped": self.stopped,
            "data_wait_share": self.waiting,
            "recommended": asdict(self.recommended),
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.device}, rows of {self.sequence_length} tokens"
        header = ("micro-batch", "precision", "compiled", "samples/s", "tokens/s", "s a step", "memory MiB")
        yield "  ".join(name.rjust(11) for name in header)
        for trial in self.trials:
            yield "  ".join(cell.rjust(11) for cell in _cells(trial))
        for stop in self.stopped:
            compiled = ", compiled" if stop["compiled"] else ""
            yield f"{stop['precision']}{compiled}: stopped because {stop['stopped']}"
        if self.waiting is not None:
            yield f"waiting for data: {self.waiting:.1%} of the time"
        yield f"recommended: {options_of(self.recommended)}"


def options_of(trial: Trial) -> str:
    """The options of `peer join` that choose a setting."""
    compile_option = " --compile" if trial.compiled else ""
    checkpointing = " --gradient-checkpointing" if trial.gradient_checkpointing else ""
    size = trial.micro_batch_size
    return f"--micro-batch-size {size} --precision {trial.precision}{compile_option}{checkpointing}"


def _cells(trial: Trial) -> tuple[str, ...]:
    return (
        str(trial.micro_batch_size),
        trial.precision,
        "yes" if trial.compiled else "no",
        f"{trial.samples_per_second:.2f}",
        f"{trial.tokens_per_second:.0f}",
        f"{trial.seconds:.3f}",
        f"{trial.memory_bytes / MIB:.0f}",
    )


def run_bench(plan: BenchPlan) -> BenchReport:
    """Measure what the plan says; raises `OperationFailed` if not even one sample could be measured."""
    report = BenchReport(plan.device, plan.workload.sequence_length)
    with TemporaryFile("w+") as complaints:
        for message in _messages(plan, complaints):
            if "trial" in message:
                report.trials.append(Trial(**message["trial"]))
            elif "stopped" in message:
                report.stopped.append(message)
            else:
                report.waiting = message["waiting"]
        if not report.trials:
            complaints.seek(0)
            raise OperationFailed(_why_nothing(plan, complaints.read()))
    return report


def _messages(plan: BenchPlan, complaints: IO[str]) -> Iterator[dict[str, Any]]:
    """What a child process says of the plan, until it ends or its time is over."""
    tie = functools.partial(set_parent_death_signal, os.getpid()) if sys.platform == "linux" else None
    child = subprocess.Popen(
        [sys.executable, "-m", "peer.bench_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=complaints,
        text=True,
        preexec_fn=tie,
    )
    patience = PATIENCE_SECONDS + COMPILATION_SECONDS * sum(compiled for _, compiled in plan.settings)
    timer = threading.Timer(plan.search_seconds + patience, child.kill)
    timer.start()
    try:
        if child.stdin is None or child.stdout is None:
            raise OperationFailed("the measuring process could not be talked to")
        with suppress(BrokenPipeError), child.stdin:
            child.stdin.write(plan.to_json())
        for line in child.stdout:
            yield json.loads(line)
        child.wait()
    finally:
        timer.cancel()
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def _why_nothing(plan: BenchPlan, complaints: str) -> str:
    said = complaints.strip().splitlines()
    reason = f" ({said[-1]})" if said else ""
    return (
        f"not even one sample of {plan.workload.sequence_length} tokens could be measured on {plan.device}{reason}: "
        "the model may be too large or too slow for this machine"
    )
