"""`peer bench --ranks 1,2,4,8,16`: how a node's samples/s grow with its ranks, at equal work for each of them.

The ranks are those of `peer join`: torch's elastic agent, one process per device, sums to the leader and parameters
back once per global step. Only the swarm is missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from model import LeanAlbertShape
from model.shape_lean_albert import FIELD_NAMES
from peer.bench_plan import Workload
from peer.device import JOIN_PRECISIONS
from peer.device_facts import DeviceFacts
from peer.forked_call import in_a_fork
from peer.micro_batch import Shape, found_shape
from peer.node.agent import OneNode, has_succeeded, run_ranks, start_fork_server, why_it_failed
from peer.node.devices import devices_for, probe
from peer.node.entry import enter_measured_rank
from peer.node.interruption import stopped_by_signals
from peer.node.orders import Setup
from peer.node.scratch import scratch_folder
from peer.node.supervisor import FORK_SERVER_MODULE, PROBE_SECONDS
from peer.options import JoinOptions
from peer.scaling_report import ScalingReport, ScalingRow
from peer.synthetic_text import write_synthetic_bundle
from swarm.errors import ArtelError, BadInput, OperationFailed
from swarm.spec import DataSpec, ModelSpec, RunSpec

DEFAULT_ACCUMULATE = 16
PEER_ID = "bench"
NOT_OF_THE_SHAPE = {"pad_token_id", "bos_token_id", "eos_token_id", "classifier_dropout_prob"}

Say = Callable[[str], None]


@dataclass(frozen=True)
class ScalingPlan:
    """What to measure.

    :param counts: of ranks; one rank is always measured
    :param precisions: None for the one that `peer join` would choose, and fp32
    :param micro_batch_size: of all ranks; None for what `peer join` would find
    :param accumulate: micro-batches of a rank per global step
    :param seconds: for all of it, about; every setting gets its equal part, or two global steps
    """

    workload: Workload
    counts: Sequence[int]
    device: str | None = None
    precisions: Sequence[str] | None = None
    micro_batch_size: int | None = None
    accumulate: int = DEFAULT_ACCUMULATE
    compiled: bool = False
    seconds: float = 60.0
    debug: bool = False


def parse_counts(text: str) -> list[int]:
    """`1,2,4` as numbers, 1 always among them; raises `BadInput`.

    >>> parse_counts("16, 2")
    [1, 2, 16]
    """
    try:
        counts = {int(word) for word in text.split(",")}
    except ValueError:
        raise BadInput(f"--ranks {text}: give numbers with commas between them, like 1,2,4,8,16") from None
    if min(counts) < 1:
        raise BadInput(f"--ranks {text}: a node has at least one rank")
    return sorted(counts | {1})


def measure_scaling(plan: ScalingPlan, say: Say) -> ScalingReport:
    """Measure what the plan says; a setting that fails is told in the report.

    :param say: told about every setting as it is measured
    :raises BadInput: for what cannot be measured here
    :raises OperationFailed: if not even one rank could be measured
    :raises Interrupted: if a signal stopped it; no process is left then
    """
    names = devices_for(plan.device, max(plan.counts))
    if unknown := set(plan.precisions or ()) - set(JOIN_PRECISIONS):
        raise BadInput(f"--precision {unknown.pop()} is not one of {', '.join(JOIN_PRECISIONS)}")
    spec = run_of(plan.workload)
    on_cpu = names[0] == "cpu"
    if on_cpu:
        # what a device is to others, a core is here; read when the ranks' processes begin
        os.environ["OMP_NUM_THREADS"] = "1"
    with stopped_by_signals(), scratch_folder() as folder:
        write_synthetic_bundle(folder, plan.workload.config["vocab_size"])
        start_fork_server(FORK_SERVER_MODULE)
        devices = _usable(names)
        report = ScalingReport(
            devices[0].description,
            "gloo" if on_cpu else "NCCL",
            len(os.sched_getaffinity(0)) if on_cpu else None,
            plan.workload.sequence_length,
            plan.accumulate,
        )
        _Measurement(plan, spec, folder, devices, report, say).run()
    if not report.rows:
        raise OperationFailed(report.failures[0])
    return report


def run_of(workload: Workload) -> RunSpec:
    """A run with this model; raises `BadInput` for a model that runs do not train."""
    config = LeanAlbertShape(**workload.config)
    model = ModelSpec(**{name: getattr(config, name) for name in ModelSpec.model_fields})
    trained = LeanAlbertShape(vocab_size=config.vocab_size, **model.model_dump())
    fields = set(FIELD_NAMES) - NOT_OF_THE_SHAPE
    if other := sorted(name for name in fields if getattr(config, name) != getattr(trained, name)):
        raise BadInput(
            f"--ranks measures models that a run spec can describe, and none has {other[0]} = "
            f"{getattr(config, other[0])}: give a run spec"
        )
    data = DataSpec(vocab_size=config.vocab_size, sequence_length=workload.sequence_length)
    return RunSpec(name="bench", model=model, data=data)


def _usable(names: Sequence[str]) -> list[DeviceFacts]:
    """All of them, or `BadInput`: a table with gaps would help nobody."""
    try:
        with in_a_fork(probe, list(names), None, seconds=PROBE_SECONDS) as ready:
            if isinstance(ready, ArtelError):
                raise ready
            if len(ready) == len(names):
                return list(ready)
    except (TimeoutError, EOFError):
        ready = []
    raise BadInput(f"--ranks: only {len(ready)} of {', '.join(names)} can be used; see `peer doctor`")


@dataclass
class _Measurement:
    plan: ScalingPlan
    spec: RunSpec
    folder: Path
    devices: Sequence[DeviceFacts]
    report: ScalingReport
    say: Say

    def run(self) -> None:
        """Fill the report."""
        chosen = self.plan.precisions or (self.devices[0].precision, "fp32")
        precisions = list(dict.fromkeys(chosen))
        shapes = {name: self._shape(name) for name in precisions}
        seconds = self.plan.seconds / len(precisions) / len(self.plan.counts)
        for count in self.plan.counts:
            for precision in precisions:
                self._add(count, precision, shapes[precision], seconds)

    def _shape(self, precision: str) -> Shape:
        if self.plan.micro_batch_size is not None:
            return Shape(self.plan.micro_batch_size)
        facts = replace(self.devices[0], precision=precision)
        return found_shape(
            self.spec,
            facts,
            self.plan.compiled,
            self.folder,
            lambda text: self.say(f"{precision}: {text}"),
        )

    def _add(self, count: int, precision: str, shape: Shape, seconds: float) -> None:
        if self.report.row(1, precision) is None and count > 1:
            return  # nothing to compare with
        options = JoinOptions(
            [],
            micro_batch_size=shape.micro_batch_size,
            gradient_checkpointing=shape.gradient_checkpointing,
            compiled=self.plan.compiled,
            cache_dir=self.folder,
        )
        facts = [replace(device, precision=precision) for device in self.devices[:count]]
        setup = Setup(self.spec.canonical_json().decode(), str(self.folder), PEER_ID)
        arguments = (options, facts, setup, self.plan.accumulate, seconds, self.plan.debug)
        result = run_ranks(enter_measured_rank, arguments, count, OneNode())
        if not has_succeeded(result):
            self.report.failures.append(
                f"ranks: {count}, {precision}: could not be measured, for {why_it_failed(result)}"
            )
            return
        measured = result.return_values[0]
        self.report.parameters = measured.parameters
        by_rate = sorted(measured.steps, key=lambda step: step.samples / step.seconds)
        median = by_rate[(len(by_rate) - 1) // 2]
        row = ScalingRow(
            count,
            precision,
            shape.micro_batch_size,
            median.samples,
            median.seconds,
            median.parts,
            len(by_rate),
        )
        self.report.rows.append(row)
        self.say(
            f"ranks: {count}, {precision}, median of {row.steps} global steps: {row.samples_per_second:.2f} samples/s, "
            f"{self.report.scaling(row):.2f}/{count}"
        )
