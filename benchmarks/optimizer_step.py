"""A step of LAMB with 8-bit state against bitsandbytes' AdamW8bit and a plain fp32 LAMB, on the CPU.

    python -m benchmarks.optimizer_step [--rounds 7] [--threads N] [--clock cpu] [--keep-freed-memory] [--plot FILE]

Prints milliseconds, speed relative to AdamW8bit and to plain LAMB, bytes of state per parameter, and what
fraction of the stored codes is the nearest one. All competitors take turns in one process. With --keep-freed-memory
all of them run under the allocator setting of `peer join`, which spares those that make temporary tensors most.
"""

from __future__ import annotations

import argparse
import statistics
import time

import bitsandbytes
import torch
from bitsandbytes.functional import create_dynamic_map

from benchmarks.interleaved import median_ratio, print_table, save_bars, time_in_turns
from model import Lamb
from model.host_allocator import keep_freed_memory

# about a LeanALBERT of hidden size 1024 with a vocabulary of 32,000: 30 million parameters
SHAPES = [(32000, 128), (3072, 1024), (1024, 1024), (8192, 1024), (1024, 4096), (8192, 1024), (700, 1024)]
PLAIN, ADAM8, LAMB8, LAMB32 = (
    "plain fp32 LAMB",
    "bitsandbytes AdamW8bit",
    "Lamb, 8-bit state",
    "Lamb, fp32 state",
)


class PlainLamb(torch.optim.Optimizer):
    """LAMB as one would write it down: whole tensors, fp32."""

    def __init__(self, params: list[torch.nn.Parameter]) -> None:
        super().__init__(params, {"lr": 2.5e-3})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        params = self.param_groups[0]["params"]
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        for p in params:
            state = self.state[p]
            if not state:
                state["m"], state["v"] = torch.zeros_like(p), torch.zeros_like(p)
            m = state["m"].mul_(0.9).add_(p.grad, alpha=0.1)
            v = state["v"].mul_(0.95).addcmul_(p.grad, p.grad, value=0.05)
            delta = m / (v.sqrt() + 1e-6) + 0.01 * p
            ratio = (p.norm() / delta.norm()).item()
            p.sub_(delta, alpha=self.param_groups[0]["lr"] * ratio)


def parameters() -> list[torch.nn.Parameter]:
    """The same parameters, with heavy-tailed gradients, for every competitor."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for shape in SHAPES:
        p = torch.nn.Parameter(torch.randn(shape, generator=generator) * 0.02)
        p.grad = torch.randn(shape, generator=generator) * torch.rand(shape, generator=generator) ** 4
        result.append(p)
    return result


def state_bytes_per_parameter(optimizer: torch.optim.Optimizer) -> float:
    """All tensors of the optimizer's state, but for codebooks shared between parameters."""
    tensors = [
        value
        for state in optimizer.state.values()
        for name, value in state.items()
        if torch.is_tensor(value) and "qmap" not in name
    ]
    count = sum(p.numel() for group in optimizer.param_groups for p in group["params"])
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors) / count


def nearest_codes() -> tuple[float, float]:
    """Fraction of codes of a heavy-tailed moment that are the nearest: (ours, bitsandbytes')."""
    values = torch.randn(64, 4096) * torch.rand(64, 4096) ** 4
    p = torch.nn.Parameter(torch.ones(values.shape))
    p.grad = values
    lamb = Lamb([p], state_bits=8, max_grad_norm=None, betas=(0.0, 0.95))
    lamb.step()
    ours = lamb.state[p]["exp_avg_codes"].view(64, 4096)
    table = create_dynamic_map(signed=True)
    scaled = values / values.abs().amax(1, keepdim=True)
    theirs, _ = bitsandbytes.functional.quantize_blockwise(values, code=table, blocksize=4096)
    fractions = []
    for codes, first in ((ours, -1.0), (theirs.view(64, 4096), table[0].item())):
        entries = torch.cat((torch.tensor([first]), table[1:]))
        nearest = torch.bucketize(scaled.double(), (entries[1:].double() + entries[:-1].double()) / 2)
        fractions.append((codes.long() == nearest).double().mean().item())
    return fractions[0], fractions[1]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--clock", choices=("wall", "cpu"), default="wall", help="cpu: our processor time, with --threads 1"
    )
    parser.add_argument("--keep-freed-memory", action="store_true", help="as `peer join` sets the allocator")
    parser.add_argument("--plot", help="write a bar chart here (.svg or .png; needs matplotlib)")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.keep_freed_memory and not keep_freed_memory():
        parser.error("--keep-freed-memory: this allocator has no such setting")
    optimizers = {
        ADAM8: bitsandbytes.optim.AdamW8bit(parameters(), lr=1e-3),
        PLAIN: PlainLamb(parameters()),
        LAMB32: Lamb(parameters()),
        LAMB8: Lamb(parameters(), state_bits=8),
    }
    clock = time.process_time if given.clock == "cpu" else time.perf_counter
    steps = {name: optimizer.step for name, optimizer in optimizers.items()}
    seconds = time_in_turns(steps, given.rounds, clock=clock)
    rows = []
    for name, optimizer in optimizers.items():
        rows.append(
            (
                name,
                f"{statistics.median(seconds[name]) * 1e3:.0f}",
                f"{median_ratio(seconds, ADAM8, name):.2f}x",
                f"{median_ratio(seconds, PLAIN, name):.2f}x",
                f"{state_bytes_per_parameter(optimizer):.3f}",
            )
        )
    count = sum(p.numel() for p in parameters())
    print(f"{count / 1e6:.1f} million parameters, {given.threads} threads, {given.rounds} rounds in turns\n")
    print_table(("optimizer", "ms a step", "vs AdamW8bit", "vs plain LAMB", "state bytes/parameter"), rows)
    ours, theirs = nearest_codes()
    print(f"\nnearest codes stored: ours {ours:.2%}, bitsandbytes on CPU {theirs:.2%}")
    if given.plot:
        ratios = {name: median_ratio(seconds, ADAM8, name) for name in optimizers}
        save_bars(given.plot, "Optimizer step on the CPU", ratios, "speed relative to AdamW8bit")


if __name__ == "__main__":
    main()
