"""Training steps of wide LeanALBERTs on a GPU: speed, share of the hardware's peak (MFU), memory.

    python -m benchmarks.gpu_step [--hidden 1024 2048 4096] [--precision bf16 fp16] [--compile] [--json FILE]
    python -m benchmarks.gpu_step --small        # tiny shapes on the CPU, to see that the script works

Forward and backward with SDPA (its flash kernel in half precision), masked-LM scores at masked positions only.
MFU counts the model's own products, not what checkpointing computes again, against the vendor's dense peak where the
card is known, and always against what a large product reaches here in the same run. At the end stands a whole step of a
32-layer model of hidden size 2048 with 8-bit LAMB on the host. It must fit into 16 GB: a larger card is held to
that, less what the driver takes, and a step that needs more is said not to fit (`--memory-gb`).
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.interleaved import print_table
from model import Lamb, LeanAlbertConfig, LeanAlbertForPreTraining, parameter_groups
from model.training_step import PRECISIONS, StepSetting, built_model, measure, run_step, synthetic_batch

VOCABULARY, HEAD_SIZE, EMBEDDING, GIB = 50048, 64, 256, 2**30
# dense TFLOP/s in half precision, from the vendor's data sheets, by whole words of the card's name; longer ones first
VENDOR_PEAKS = {
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H200": 989,
    "H100": 989,
    "A100": 312,
    "A10": 125,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "RTX 4090": 165,
    "RTX 3090": 71,
    "V100": 125,
    "T4": 65,
}

SMALL = {
    "hidden": [64],
    "layers": 2,
    "length": 32,
    "sizes": [1, 2],
    "precision": ["bf16"],
    "step_hidden": 64,
    "step_size": 2,
    "matmul": 64,
    "memory_gb": 16.0,
    "device": "cpu",
}


@dataclass(frozen=True)
class Measured:
    """One line of the table; `mfu` is None on a card whose peak is not known here."""

    hidden: int
    layers: int
    precision: str
    micro_batch_size: int
    checkpointed: bool
    tokens_per_second: float
    tflops: float
    mfu: float | None
    of_matmul: float
    peak_gib: float


def shape(hidden: int, layers: int) -> LeanAlbertConfig:
    return LeanAlbertConfig(
        vocab_size=VOCABULARY,
        embedding_size=min(EMBEDDING, hidden),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // HEAD_SIZE),
        intermediate_size=4 * hidden,
    )


def vendor_peak(device: str, precision: str) -> float | None:
    """FLOP/s of the card's data sheet in half precision."""
    if precision == "fp32" or torch.device(device).type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next(
        (1e12 * peak for known, peak in VENDOR_PEAKS.items() if re.search(rf"\b{known}\b", name)), None
    )


def matmul_peak(device: str, precision: str, size: int) -> float:
    """FLOP/s of a large square product here: the best of a few."""
    left, right = (torch.randn(size, size, device=device, dtype=PRECISIONS[precision]) for _ in range(2))
    best = float("inf")
    for _ in range(8):
        _wait_for(device)
        started = time.perf_counter()
        left @ right
        _wait_for(device)
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def flops_per_token(config: LeanAlbertConfig, length: int) -> float:
    """Forward and backward, counted on one short-headed row on the host with the explicit kernel."""
    small = LeanAlbertConfig.from_dict({**config.to_dict(), "num_hidden_layers": 1})
    two = LeanAlbertConfig.from_dict({**config.to_dict(), "num_hidden_layers": 2})
    one_layer, two_layers = (_counted(each, length) for each in (small, two))
    return (one_layer + (config.num_hidden_layers - 1) * (two_layers - one_layer)) / length


def _counted(config: LeanAlbertConfig, length: int) -> int:
    config._attn_implementation = "eager"
    model = LeanAlbertForPreTraining(config).train()  # the trained network has the fused kernels only
    with FlopCounterMode(display=False) as counter:
        run_step(model, synthetic_batch(config, 1, length), "cpu", "fp32")
    return counter.get_total_flops()


def measured(hidden: int, precision: str, size: int, per_token: float, given: argparse.Namespace) -> Measured:
    """One shape at one micro-batch size; raises torch.OutOfMemoryError where it does not fit."""
    setting = StepSetting(
        shape(hidden, given.layers),
        size,
        given.length,
        precision,
        given.compile,
        given.checkpoint,
        given.device,
    )
    cost = measure(setting, warmup=2, repetitions=5)
    rate = cost.tokens_per_second * per_token
    peak = vendor_peak(given.device, precision)
    return Measured(
        hidden,
        given.layers,
        precision,
        size,
        given.checkpoint,
        cost.tokens_per_second,
        rate / 1e12,
        rate / peak if peak else None,
        rate / matmul_peak(given.device, precision, given.matmul),
        cost.peak_memory_bytes / GIB,
    )


def best_size(hidden: int, precision: str, given: argparse.Namespace) -> Measured | None:
    """The fastest of the micro-batch sizes that fit."""
    per_token = flops_per_token(shape(hidden, given.layers), given.length)
    found = []
    for size in given.sizes:
        try:
            found.append(measured(hidden, precision, size, per_token, given))
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
    return max(found, key=lambda one: one.tokens_per_second, default=None)


@contextmanager
def card_of(gigabytes: float, device: str) -> Iterator[None]:
    """Hold this process to a card of so many GB, of which the driver's own share is not to be had."""
    if torch.device(device).type != "cuda":
        yield
        return
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    free, total = torch.cuda.mem_get_info(device)
    driver = total - free - torch.cuda.memory_reserved(device)
    index = torch.device(device).index
    torch.cuda.set_per_process_memory_fraction(min(1.0, max(0.0, (gigabytes * 1e9 - driver) / total)), index)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, index)


def whole_step(given: argparse.Namespace) -> tuple[float, float, float]:
    """GiB at the peak, seconds of forward and backward, seconds of the optimizer: accumulate twice, then step."""
    setting = StepSetting(
        shape(given.step_hidden, given.layers),
        given.step_size,
        given.length,
        given.precision[0],
        gradient_checkpointing=given.checkpoint,
        device=given.device,
    )
    model = built_model(setting)
    optimizer = Lamb(parameter_groups(model, 0.01), state_bits=8, state_device="cpu")
    batch = synthetic_batch(setting.config, given.step_size, given.length, given.device)
    started = time.perf_counter()
    for _ in range(2):
        run_step(model, batch, given.device, given.precision[0])
    computed = time.perf_counter()
    optimizer.step()
    _wait_for(given.device)
    peak = torch.cuda.max_memory_reserved(given.device) if torch.device(given.device).type == "cuda" else 0
    return peak / GIB, (computed - started) / 2, time.perf_counter() - computed


def _wait_for(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _cells(one: Measured) -> tuple[str, ...]:
    return (
        str(one.hidden),
        one.precision,
        str(one.micro_batch_size),
        f"{one.tokens_per_second:.0f}",
        f"{one.tflops:.1f}",
        "unknown" if one.mfu is None else f"{one.mfu:.0%}",
        f"{one.of_matmul:.0%}",
        f"{one.peak_gib:.2f}",
    )


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hidden", type=int, nargs="+", default=[1024, 2048, 4096])
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 8, 16, 32, 64], help="micro-batch sizes")
    parser.add_argument("--precision", nargs="+", choices=tuple(PRECISIONS), default=["bf16", "fp16"])
    parser.add_argument("--compile", action="store_true", help="torch.compile of every pair of layers")
    parser.add_argument("--checkpoint", action="store_true", help="gradient checkpointing in the first table")
    parser.add_argument("--step-hidden", type=int, default=2048, help="width of the whole step")
    parser.add_argument("--step-size", type=int, default=8, help="micro-batch size of the whole step")
    parser.add_argument(
        "--memory-gb", type=float, default=16.0, help="size of the card the whole step must fit"
    )
    parser.add_argument("--matmul", type=int, default=8192, help="size of the product that is the yardstick")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--small", action="store_true", help="tiny shapes on the CPU; overrides all of the above"
    )
    parser.add_argument("--json", type=Path, help="write all figures here")
    given = parser.parse_args()
    if given.small:
        vars(given).update(SMALL)
    return given


def main() -> None:
    """Command line."""
    given = arguments()
    on_gpu = torch.device(given.device).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("no GPU here: nothing measured")
        return
    name = torch.cuda.get_device_name(given.device) if on_gpu else given.device
    print(f"{name}, torch {torch.__version__}, {given.layers} layers, {given.length} tokens\n")
    found = [
        one
        for hidden in given.hidden
        for precision in given.precision
        if (one := best_size(hidden, precision, given)) is not None
    ]
    header = ("hidden", "precision", "micro-batch", "tokens/s", "TFLOP/s", "MFU", "of matmul", "peak GiB")
    print_table(header, [_cells(one) for one in found])
    steps = []
    for given.checkpoint in (False, True):
        try:
            with card_of(given.memory_gb, given.device):
                peak, compute, update = whole_step(given)
        except torch.OutOfMemoryError:
            kind = "with" if given.checkpoint else "without"
            print(f"\n{kind} checkpointing the whole step does not fit into {given.memory_gb:g} GB")
            continue
        steps.append(
            {
                "checkpointed": given.checkpoint,
                "peak_gib": peak,
                "micro_batch_seconds": compute,
                "update_seconds": update,
            }
        )
        kind = "with" if given.checkpoint else "without"
        print(
            f"\nwhole step, hidden {given.step_hidden}, {given.step_size} x {given.length}, {kind} checkpointing: "
            f"peak {peak:.2f} GiB, {compute:.3f} s a micro-batch, {update:.3f} s for 8-bit LAMB on the host"
        )
    if given.json:
        content = {"device": name, "steps": [asdict(one) for one in found], "whole_step": steps}
        given.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
