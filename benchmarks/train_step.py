"""A training step of LeanALBERT against HF ALBERT and ModernBERT of equal width and depth.

    python -m benchmarks.train_step [--hidden 512 768] [--precision fp32 bf16] [--rounds 5] [--plot DIR]

Forward and backward of masked LM (15 % of 512 tokens) and sentence order, vocabulary 32,000. All models take
turns in one process, so that they share threads, allocator and whatever else runs on the machine. The
intermediate size is 4 x hidden for all; LeanALBERT as published is gated, which makes its feed-forward
layers half as large again as ALBERT's, so an ungated one stands beside it. `of peak` is the model's
floating-point operations over what a large matrix product reaches here, measured in the same round.
With --packing: the same documents of mixed length, padded, and packed into full rows.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AlbertConfig, AlbertForPreTraining, ModernBertConfig, ModernBertForMaskedLM

from benchmarks.interleaved import median_ratio, print_table, save_bars, time_in_turns
from model import LeanAlbertConfig, LeanAlbertForPreTraining
from model.fp32_matmul import allow_onednn_fp32
from model.peak_memory import PeakMemory
from model.training_step import Batch, autocast, run_step, synthetic_batch

VOCABULARY, HEAD_SIZE, EMBEDDING = 32000, 64, 128
ALBERT, MODERN, PEAK = "HF ALBERT", "ModernBERT", "matmul"


def lean(
    hidden: int, layers: int, *, attention: str = "sdpa", gated: bool = True
) -> LeanAlbertForPreTraining:
    config = LeanAlbertConfig(
        vocab_size=VOCABULARY,
        embedding_size=EMBEDDING,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // HEAD_SIZE,
        intermediate_size=4 * hidden,
        hidden_act_gated=gated,
        attn_implementation=attention,
    )
    return LeanAlbertForPreTraining(config)


def albert(hidden: int, layers: int, attention: str) -> torch.nn.Module:
    config = AlbertConfig(
        vocab_size=VOCABULARY,
        embedding_size=EMBEDDING,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // HEAD_SIZE,
        intermediate_size=4 * hidden,
        attn_implementation=attention,
    )
    return AlbertForPreTraining(config)


def modern_bert(hidden: int, layers: int) -> torch.nn.Module:
    config = ModernBertConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // HEAD_SIZE,
        intermediate_size=4 * hidden,
        max_position_embeddings=512,
        pad_token_id=0,
        attn_implementation="sdpa",
    )
    return ModernBertForMaskedLM(config)


def competitors(hidden: int, layers: int, compiled: bool) -> dict[str, torch.nn.Module]:
    models: dict[str, torch.nn.Module] = {
        f"{ALBERT}, sdpa": albert(hidden, layers, "sdpa"),
        f"{ALBERT}, eager": albert(hidden, layers, "eager"),
        MODERN: modern_bert(hidden, layers),
        "LeanALBERT": lean(hidden, layers),
        "LeanALBERT, explicit attention": lean(hidden, layers, attention="eager"),
        "LeanALBERT, ungated": lean(hidden, layers, gated=False),
    }
    if compiled:
        models["LeanALBERT, compiled"] = torch.compile(lean(hidden, layers), dynamic=True)  # type: ignore[assignment]
    return {name: model.train() for name, model in models.items()}


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
    return memory.peak_bytes()


def matmul(precision: str) -> tuple[Callable[[], None], int]:
    """A large product in this precision, and its floating-point operations."""
    left, right = torch.randn(4096, 1024), torch.randn(1024, 2048)

    def multiply() -> None:
        with torch.no_grad(), autocast("cpu", precision):
            torch.mm(left, right)

    return multiply, 2 * 4096 * 1024 * 2048


def flops_of_lean(hidden: int, layers: int, gated: bool, batch: Batch) -> int:
    """Forward and backward, counted on the explicit kernel, whose products torch can all see."""
    model = lean(hidden, layers, attention="eager", gated=gated).train()
    with FlopCounterMode(display=False) as counter:
        run_step(model, batch, "cpu", "fp32")
    return counter.get_total_flops()


def compare(hidden: int, precision: str, given: argparse.Namespace) -> dict[str, float]:
    """Print the table for one width and precision; returns speeds relative to the better HF ALBERT."""
    torch.manual_seed(0)
    models = competitors(hidden, given.layers, given.compile)
    config = LeanAlbertConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, num_attention_heads=hidden // HEAD_SIZE
    )
    batch = synthetic_batch(config, given.batch, given.length)
    steps = {name: step_of(model, batch, precision) for name, model in models.items()}
    multiply, flops = matmul(precision)
    seconds = time_in_turns({**steps, PEAK: multiply}, given.rounds)
    best = min((n for n in steps if n.startswith(ALBERT)), key=lambda name: statistics.median(seconds[name]))
    peak_rate = flops / min(seconds[PEAK])
    baseline_memory = peak_of(steps[best], models[best])
    ratios, rows = {}, []
    for name, step in steps.items():
        ratios[name] = median_ratio(seconds, best, name)
        memory = peak_of(step, models[name])
        fraction = ""
        if name.startswith("LeanALBERT"):
            work = flops_of_lean(hidden, given.layers, "ungated" not in name, batch)
            fraction = f"{work / statistics.median(seconds[name]) / peak_rate:.0%}"
        tokens = given.batch * given.length / statistics.median(seconds[name])
        share = f"{memory / baseline_memory:.2f}x"
        rows.append((name, f"{tokens:.0f}", f"{ratios[name]:.2f}x", f"{memory / 2**20:.0f}", share, fraction))
    print(f"\nhidden {hidden}, {given.layers} layers, {given.batch} x {given.length} tokens, {precision}\n")
    header = ("model", "tokens/s", f"vs {best}", "peak MiB", "peak vs ALBERT", "of matmul peak")
    print_table(header, rows)
    return ratios


def documents(batch: int, length: int) -> list[int]:
    """Lengths of documents that fill `batch` rows exactly: from an eighth of a row to a whole one."""
    pattern = (1, 3, 4, 8, 2, 6, 5, 3)
    return [length * eighths // 8 for _ in range(batch // 4) for eighths in pattern]


def packed_and_padded(batch: int, length: int) -> tuple[Batch, Batch]:
    """The same labelled documents one a row with padding, and several a row with none."""
    generator = torch.Generator().manual_seed(0)
    lengths = documents(batch, length)
    ids = [torch.randint(5, VOCABULARY, (n,), generator=generator) for n in lengths]
    labels = [i.where(torch.rand(i.shape, generator=generator) < 0.15, -100) for i in ids]
    pad = torch.nn.utils.rnn.pad_sequence
    padded = {"input_ids": pad(ids, batch_first=True), "labels": pad(labels, True, -100)}
    padded["attention_mask"] = (padded["input_ids"] > 0).long()
    numbers = [torch.full((n,), index + 1) for index, n in enumerate(lengths)]
    flat = {"input_ids": ids, "labels": labels, "sequence_ids": numbers}
    return {name: torch.cat(parts).view(batch, length) for name, parts in flat.items()}, padded


def compare_packing(hidden: int, precision: str, given: argparse.Namespace) -> None:
    """Print what packing gains on documents of mixed length."""
    model = lean(hidden, given.layers).train()
    batch = max(4, given.batch // 4 * 4)
    packed, padded = packed_and_padded(batch, given.length)
    steps = {"padded": step_of(model, padded, precision), "packed": step_of(model, packed, precision)}
    seconds = time_in_turns(steps, given.rounds)
    count = len(documents(batch, given.length))
    ratio = median_ratio(seconds, "padded", "packed")
    print(f"\n{count} documents in {batch} rows, hidden {hidden}, {precision}: packed {ratio:.2f}x padded")


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
    parser.add_argument("--packing", action="store_true", help="also time packed against padded documents")
    parser.add_argument("--plot", type=Path, help="directory for bar charts (needs matplotlib)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    backend = "oneDNN" if allow_onednn_fp32() else "torch's default library"
    print(f"{given.threads} threads, {given.rounds} rounds in turns, fp32 products by {backend}")
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
            if given.packing:
                compare_packing(hidden, precision, given)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
