"""One rank of a node on a GPU: NCCL with one device, fp16 with loss scaling, and the profile of a global step.

    python -m benchmarks.gpu_rank [--hidden 1024] [--layers 32] [--size 16] [--trace trace.json] [--json FILE]
    python -m benchmarks.gpu_rank --small        # tiny shapes and gloo on the CPU, to see that the script works

The parts are those of `peer join`: the group that its ranks open, its accumulator, its loss scale, its exchange and
LAMB. First whole global steps in fp32, bf16 and fp16, and in fp16 with PyTorch's own GradScaler, in turns; what a
gradient in each of them differs from the one in fp32. Then one step by what it is made of, by a profiler: `--trace`
writes it for https://ui.perfetto.dev. `peer bench RUN.toml --ranks 1,2,4,8,16` measures all GPUs of a node together.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, record_function

from benchmarks.gpu_step import SMALL, shape
from benchmarks.interleaved import median_ratio, print_table, time_in_turns
from model import Lamb, parameter_groups
from model.training_step import Batch, StepSetting, autocast, built_model, synthetic_batch
from peer.accumulator import Accumulator
from peer.device import compute_on
from peer.loss_scale import LossScale
from peer.node.agent import OneNode
from peer.node.exchange import Exchange, close_group, open_group

GRAD_SCALER = "fp16, GradScaler"
PARTS = ("compute", "reduce", "update", "broadcast")
MEASURED_STEPS_BEFORE = 2


class OurRank:
    """Global steps as the leader of a node makes them; `precision` is that of the forward pass."""

    def __init__(self, given: argparse.Namespace, precision: str):
        self.given, self.precision = given, precision
        torch.manual_seed(0)
        self.model = built_model(
            StepSetting(shape(given.hidden, given.layers), given.size, given.length, device=given.device)
        )
        self.parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.accumulator = Accumulator(self.parameters, LossScale() if precision == "fp16" else None)
        self.exchange = Exchange(self.parameters)
        self.optimizer = Lamb(parameter_groups(self.model, 0.01), lr=1e-4)
        self.batch: Batch = synthetic_batch(self.model.config, given.size, given.length, given.device)

    def step(self) -> None:
        """Micro-batches, sums to the leader, the update, parameters back."""
        with record_function("compute"):
            self.accumulate()
        with record_function("reduce"):
            sums = self.exchange.sum_to_leader(self.accumulator.sums())
        with record_function("update"):
            samples = max(1, self.accumulator.samples)
            self.accumulator.reset()
            for parameter, total in zip(self.parameters, sums, strict=True):
                parameter.grad = total / samples
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
        with record_function("broadcast"):
            self.exchange.load_from_leader()
        wait_for(self.given.device)

    def accumulate(self) -> None:
        for _ in range(self.given.micro_batches):
            with autocast(self.given.device, self.precision):
                loss = self.model(**self.batch).loss
            self.accumulator.add(loss, self.given.size)

    def gradient(self) -> torch.Tensor:
        """The mean gradient of a step's samples, flat; nothing is accumulated afterwards.

        :raises RuntimeError: if the loss scale never came down to where gradients are finite
        """
        for _ in range(40):
            self.accumulator.reset()
            self.accumulate()
            if samples := self.accumulator.samples:
                flat = torch.cat([total.reshape(-1) for total in self.accumulator.sums()]) / samples
                self.accumulator.reset()
                return flat.double().cpu()
        raise RuntimeError(f"no finite gradient in {self.precision}")


class ScalerRank(OurRank):
    """The same micro-batches and the same optimizer with PyTorch's GradScaler, which looks once a step."""

    def __init__(self, given: argparse.Namespace):
        super().__init__(given, "fp16")
        self.scaler = torch.amp.GradScaler(torch.device(given.device).type)

    def step(self) -> None:
        self.accumulate()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        wait_for(self.given.device)

    def accumulate(self) -> None:
        for _ in range(self.given.micro_batches):
            with autocast(self.given.device, "fp16"):
                loss = self.model(**self.batch).loss / self.given.micro_batches
            self.scaler.scale(loss).backward()

    def gradient(self) -> torch.Tensor:
        for _ in range(40):
            self.accumulate()
            self.scaler.unscale_(self.optimizer)
            flat = torch.cat([parameter.grad.reshape(-1) for parameter in self.parameters])
            self.optimizer.zero_grad(set_to_none=True)
            finite = bool(torch.isfinite(flat).all())
            # also makes it forget that it has unscaled
            self.scaler.update(self.scaler.get_scale() / (1 if finite else 2))
            if finite:
                return flat.double().cpu()
        raise RuntimeError("no finite gradient with GradScaler")


def wait_for(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def compare(given: argparse.Namespace) -> list[dict]:
    """Every way in turns; how much faster than fp32, and how far its gradient is from fp32's."""
    ranks: dict[str, OurRank] = {
        precision: OurRank(given, precision) for precision in ("fp32", "bf16", "fp16")
    }
    ranks[GRAD_SCALER] = ScalerRank(given)
    # before any step: afterwards parameters differ
    reference = ranks["fp32"].gradient()
    differences = {
        name: float((rank.gradient() - reference).norm() / reference.norm()) for name, rank in ranks.items()
    }
    steps: dict[str, Callable[[], None]] = {name: rank.step for name, rank in ranks.items()}
    seconds = time_in_turns(steps, given.rounds, warmup=MEASURED_STEPS_BEFORE)
    return [
        {
            "way": name,
            "seconds": statistics.median(taken),
            "faster_than_fp32": median_ratio(seconds, "fp32", name),
            "faster_than_grad_scaler": median_ratio(seconds, GRAD_SCALER, name),
            "difference_of_gradient": differences[name],
        }
        for name, taken in seconds.items()
    ]


def profiled_step(given: argparse.Namespace) -> tuple[dict[str, float], str]:
    """Microseconds of one step in fp16 by its parts as this process saw them, and the profiler's table."""
    rank = OurRank(given, "fp16")
    for _ in range(MEASURED_STEPS_BEFORE):
        rank.step()
    on_gpu = torch.device(given.device).type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as recorded:
        rank.step()
    if given.trace:
        recorded.export_chrome_trace(str(given.trace))
    averages = recorded.key_averages()
    order = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    parts = {
        event.key: float(event.device_time_total if on_gpu else event.cpu_time_total)
        for event in averages
        if event.key in PARTS and str(event.device_type).endswith("CPU")
    }
    return parts, averages.table(sort_by=order, row_limit=given.rows, max_name_column_width=60)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--size", type=int, default=16, help="micro-batch size")
    parser.add_argument("--micro-batches", type=int, default=8, help="per global step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=20, help="of the profiler's table")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--trace", type=Path, help="write the profile of a step here")
    parser.add_argument("--json", type=Path, help="write all figures here")
    parser.add_argument("--small", action="store_true", help="tiny shapes on the CPU; overrides the above")
    given = parser.parse_args(words)
    if given.small:
        given.hidden, given.layers, given.length, given.device = 64, SMALL["layers"], SMALL["length"], "cpu"
        given.size, given.micro_batches, given.rounds = 2, 2, 1
    return given


def main() -> None:
    """Command line."""
    given = arguments()
    device = torch.device(given.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no GPU here: nothing measured (--small tries the script on the CPU)")
        return
    compute_on(device)
    node = OneNode()
    open_group(node.store, device, rank=0, ranks=1)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    group = torch.distributed.get_backend()
    print(
        f"{name}, torch {torch.__version__}, {group} with one rank, {given.layers} layers of {given.hidden}, "
        f"{given.micro_batches} micro-batches of {given.size} x {given.length} a global step\n"
    )
    ways = compare(given)
    print_table(
        ("way", "s a step", "of fp32", "of GradScaler", "gradient differs by"),
        [
            (
                way["way"],
                f"{way['seconds']:.4f}",
                f"{way['faster_than_fp32']:.2f}x",
                f"{way['faster_than_grad_scaler']:.2f}x",
                f"{way['difference_of_gradient']:.1e}",
            )
            for way in ways
        ],
    )
    parts, table = profiled_step(given)
    total = sum(parts.values())
    shares = ", ".join(f"{part} {parts[part] / total:.1%}" for part in PARTS)
    print(f"\na step in fp16, by the profiler: {shares}\n\n{table}")
    if given.json:
        content = {"device": name, "group": group, "ways": ways, "parts_in_microseconds": parts}
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    close_group()


if __name__ == "__main__":
    main()
