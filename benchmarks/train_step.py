"""A training step of LeanALBERT against HF ALBERT and ModernBERT of equal width and depth.

    python -m benchmarks.train_step [--hidden 512 768] [--precision fp32 bf16] [--rounds 5] [--plot DIR]

Forward and backward of masked LM (15 % of 512 tokens) and sentence order, vocabulary 32,000. All models take
turns in one process, so that they share threads and whatever else runs on the machine. The intermediate size is
4 x hidden for all; LeanALBERT as published is gated, which makes its feed-forward layers half as large again as
ALBERT's, so an ungated one stands beside it; `MFLOP/token` says what each has to compute.

`peer join` sets two things for the whole process: oneDNN for fp32 products where a check says that it still is fp32,
and an allocator that keeps freed memory. A user of HF ALBERT gets neither. Both are shown: "as installed" without
them, everything else with them. The goal is measured with them for all, so that only the models differ.

`of matmul peak` is the model's floating-point operations over what a large matrix product reaches here, measured in
the same rounds, and `at most` the speed relative to HF ALBERT that a model would have if it did nothing but products at
that peak: no program for this machine can be faster without fewer operations. With --clock cpu the processor time of
this process is measured, which other programs on the machine disturb less (use --threads 1).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import ModernBertForMaskedLM

from benchmarks.interleaved import Seconds, median_ratio, print_table, save_bars, time_in_turns
from benchmarks.step_competitors import (
    ALBERT,
    ALBERT_SDPA,
    HEAD_SIZE,
    LEAN,
    MODERN,
    VOCABULARY,
    albert,
    competitors,
    lean,
    modern_bert,
)
from model import LeanAlbertConfig
from model.fp32_matmul import allow_onednn_fp32
from model.host_allocator import keep_freed_memory, return_freed_memory
from model.peak_memory import PeakMemory
from model.training_step import Batch, autocast, run_step, synthetic_batch

PEAK, AS_INSTALLED = "matmul", "as installed"


def our_settings() -> str:
    """What `peer join` sets; says which library does fp32 products."""
    keep_freed_memory()
    return "oneDNN" if allow_onednn_fp32() else "torch's default library"


def default_settings() -> None:
    """What a user of a library gets who sets nothing."""
    torch.set_float32_matmul_precision("highest")
    return_freed_memory()


def step_of(model: torch.nn.Module, batch: Batch, precision: str) -> Callable[[], None]:
    inputs = batch
    if isinstance(model, ModernBertForMaskedLM):
        inputs = {name: tensor for name, tensor in batch.items() if name != "sentence_order_label"}

    def step() -> None:
        model.zero_grad(set_to_none=True)
        run_step(model, inputs, "cpu", precision)

    return step


def peak_of(step: Callable[[], None], model: torch.nn.Module) -> int:
    model.zero_grad(set_to_none=True)
    memory = PeakMemory("cpu")
    step()
    peak = memory.peak_bytes()
    model.zero_grad(set_to_none=True)
    return peak


def matmul(precision: str) -> tuple[Callable[[], None], int]:
    """A large product in this precision, and its floating-point operations."""
    left, right = torch.randn(4096, 1024), torch.randn(1024, 2048)

    def multiply() -> None:
        with torch.no_grad(), autocast("cpu", precision):
            torch.mm(left, right)

    return multiply, 2 * 4096 * 1024 * 2048


def flops_of(name: str, hidden: int, layers: int, batch: Batch) -> int:
    """Forward and backward of a model, counted on the explicit kernel, whose products torch can all see.

    Counted for the first row and multiplied: the rows differ only in how many tokens are masked.
    """
    rows = len(batch["input_ids"])
    batch = {key: tensor[:1] for key, tensor in batch.items()}
    if name.startswith(ALBERT):
        model = albert(hidden, layers, "eager")
    elif name.startswith(MODERN):
        model = modern_bert(hidden, layers, "eager")
    else:
        model = lean(hidden, layers, attention="eager", gated="ungated" not in name)
    with FlopCounterMode(display=False) as counter:
        step_of(model.train(), batch, "fp32")()
    return rows * counter.get_total_flops()


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    seconds: float
    speed: float  # relative to the better HF ALBERT under the same settings
    peak_bytes: int
    memory: float  # relative to the same
    flops: int
    at_most: float  # `speed` at the peak of matrix products


def compare(hidden: int, precision: str, given: argparse.Namespace) -> dict[str, float]:
    """Print the table for one width and precision; returns speeds relative to the better HF ALBERT."""
    torch.manual_seed(0)
    config = LeanAlbertConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_attention_heads=hidden // HEAD_SIZE
    )
    batch = synthetic_batch(config, given.batch, given.length)
    makers = competitors(hidden, given.layers, given.compile, given.skip)
    models = {name: make().train() for name, make in makers.items()}
    steps = {name: step_of(model, batch, precision) for name, model in models.items()}
    turns = dict(steps)
    prepare: dict[str, Callable[[], object]] = dict.fromkeys(steps, our_settings)
    for name in (ALBERT_SDPA, LEAN):
        turns[f"{name}, {AS_INSTALLED}"] = steps[name]
        prepare[f"{name}, {AS_INSTALLED}"] = default_settings
    multiply, flops = matmul(precision)
    clock = time.process_time if given.clock == "cpu" else time.perf_counter
    seconds = time_in_turns(
        {**turns, PEAK: multiply}, given.rounds, prepare={**prepare, PEAK: our_settings}, clock=clock
    )
    peak_rate = flops / min(seconds[PEAK])
    rows = measured_rows(
        turns, prepare, models, seconds, lambda name: flops_of(name, hidden, given.layers, batch), peak_rate
    )
    print(f"\nhidden {hidden}, {given.layers} layers, {given.batch} x {given.length} tokens, {precision}\n")
    print_rows(rows, given.batch * given.length, peak_rate)
    return {row.name: row.speed for row in rows}


def measured_rows(
    turns: dict[str, Callable[[], None]],
    prepare: dict[str, Callable[[], object]],
    models: dict[str, torch.nn.Module],
    seconds: Seconds,
    flops_of_model: Callable[[str], int],
    peak_rate: float,
) -> list[Row]:
    """Speeds and peaks; each model is compared with HF ALBERT under our settings."""
    rivals = [name for name in turns if name.startswith(ALBERT) and AS_INSTALLED not in name]
    best = min(rivals, key=lambda name: statistics.median(seconds[name]))
    peaks = {}
    for name, step in turns.items():
        prepare[name]()
        peaks[name] = peak_of(step, models[name.removesuffix(f", {AS_INSTALLED}")])
    rows = []
    for name in turns:
        flops = flops_of_model(name)
        rows.append(
            Row(
                name,
                statistics.median(seconds[name]),
                median_ratio(seconds, best, name),
                peaks[name],
                peaks[name] / peaks[best],
                flops,
                statistics.median(seconds[best]) * peak_rate / flops,
            )
        )
    return rows


def print_rows(rows: list[Row], tokens: int, peak_rate: float) -> None:
    header = (
        "model",
        "tokens/s",
        "vs HF ALBERT",
        "peak MiB",
        "vs HF ALBERT",
        "MFLOP/token",
        "of matmul peak",
        "at most",
    )
    print_table(
        header,
        [
            (
                row.name,
                f"{tokens / row.seconds:.0f}",
                f"{row.speed:.2f}x",
                f"{row.peak_bytes / 2**20:.0f}",
                f"{row.memory:.2f}x",
                f"{row.flops / tokens / 1e6:.0f}",
                f"{row.flops / row.seconds / peak_rate:.0%}",
                f"{row.at_most:.2f}x",
            )
            for row in rows
        ],
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, nargs="+", default=[512, 768])
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--precision", nargs="+", choices=("fp32", "bf16"), default=["fp32"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true", help="also time LeanALBERT under torch.compile")
    parser.add_argument(
        "--skip", nargs="+", default=[], help="leave out models whose name contains one of these"
    )
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall", help="see above")
    parser.add_argument("--plot", type=Path, help="directory for bar charts (needs matplotlib)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print(
        f"{given.threads} threads, {given.rounds} rounds in turns, {given.clock} time, "
        f"fp32 products by {our_settings()}"
    )
    started = time.monotonic()
    for hidden in given.hidden:
        for precision in given.precision:
            ratios = compare(hidden, precision, given)
            if given.plot:
                given.plot.mkdir(parents=True, exist_ok=True)
                path = given.plot / f"train_step_{hidden}_{precision}.svg"
                save_bars(
                    str(path), f"Training step, hidden {hidden}, {precision}", ratios, "speed vs HF ALBERT"
                )
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
