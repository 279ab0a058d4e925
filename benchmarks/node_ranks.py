"""What the ranks of a node send: once per global step (ours) against DistributedDataParallel in every micro-batch.

    python -m benchmarks.node_ranks --ranks 2 --micro-batches 8

Real processes with gloo on loopback, all ways in turn in one run: ours, DDP as it comes, DDP that synchronizes in the
last micro-batch only (`no_sync`), and no exchange at all. Bytes are what the kernel says that the ranks' sockets have
sent, in the mean of the ranks; beside them what the collectives need at least: (N - 1)/N of a tensor that is reduced or
broadcast, twice that of one that is all-reduced. On cores that ranks share, compute takes its time either way; what
differs is the exchange.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import struct
import sys
import time
from collections.abc import Callable
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from model import LeanAlbertConfig, LeanAlbertForPreTraining
from model.training_step import synthetic_batch
from peer.accumulator import Accumulator
from peer.node.agent import OneNode, has_succeeded, run_ranks, start_fork_server
from peer.node.exchange import Exchange, open_group
from peer.node.family import connect_store
from swarm.lifeline import die_with_parent

MIB = 2**20
# of Linux' struct tcp_info, since 4.19
TCP_INFO_BYTES, BYTES_SENT_AT = 256, 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--micro-batches", type=int, default=8, help="of a rank per global step")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    options = parser.parse_args()
    start_fork_server("model")
    # not from `__main__`: ranks import what they run
    from benchmarks.node_ranks import measure_rank

    result = run_ranks(measure_rank, (vars(options),), options.ranks, OneNode())
    if not has_succeeded(result):
        sys.exit("a rank failed")
    print_table(options, result.return_values[0])


def print_table(options: argparse.Namespace, measured: dict) -> None:
    """Medians over the rounds, and ratios within them."""
    alone = measured["seconds"]["no exchange"]
    shape = f"{options.ranks} ranks, {options.micro_batches} micro-batches a global step"
    print(f"{shape}, gloo, {measured['parameters']:,} parameters")
    print(f"{'':24}{'MiB a step':>12}{'at least':>12}{'s a step':>12}{'of no exchange':>18}")
    for name, seconds in measured["seconds"].items():
        ratio = statistics.median(own / base for own, base in zip(seconds, alone, strict=True))
        sent, needed = (measured[kind][name] / MIB for kind in ("bytes", "bytes_needed"))
        print(f"{name:24}{sent:12.2f}{needed:12.2f}{statistics.median(seconds):12.3f}{ratio:17.2f}x")
    print(json.dumps(measured))


def measure_rank(options: dict) -> dict:
    """One rank: every way once per round."""
    die_with_parent(os.getppid())
    torch.set_num_threads(1)
    rank, ranks = int(os.environ["RANK"]), options["ranks"]
    store = connect_store(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    open_group(store, torch.device("cpu"), rank, ranks)
    config = LeanAlbertConfig(
        vocab_size=8192,
        hidden_size=options["hidden"],
        intermediate_size=4 * options["hidden"],
        num_hidden_layers=options["layers"],
        num_attention_heads=options["hidden"] // 64,
        max_position_embeddings=options["length"],
    )
    torch.manual_seed(0)
    model = LeanAlbertForPreTraining(config).train()
    batch = synthetic_batch(config, 1, options["length"])
    ways = {
        "no exchange": lambda: accumulate(model, batch, options["micro_batches"]),
        "once a step (ours)": OncePerStep(model, batch, options["micro_batches"]),
        "DDP every micro-batch": Ddp(model, batch, options["micro_batches"], every=True),
        "DDP with no_sync": Ddp(model, batch, options["micro_batches"], every=False),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    sent = dict.fromkeys(ways, 0)
    for round_number in range(options["rounds"] + 1):
        for name, way in ways.items():
            meet()
            before, started = bytes_sent(), time.perf_counter()
            way()
            ended = time.perf_counter()
            meet()  # what was in the kernel's buffers has arrived
            if round_number:  # the first one warms up
                seconds[name].append(ended - started)
                sent[name] += bytes_sent() - before
    mean = torch.tensor([sent[name] / options["rounds"] / ranks for name in ways], dtype=torch.float64)
    dist.all_reduce(mean)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": seconds,
        "bytes": dict(zip(ways, mean.tolist(), strict=True)),
        "bytes_needed": {name: getattr(way, "bytes", 0) for name, way in ways.items()},
    }


def meet() -> None:
    dist.monitored_barrier(timeout=timedelta(minutes=5))


def bytes_sent() -> int:
    """By all TCP connections of this process so far, as Linux counts them."""
    total = 0
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # closed meanwhile
            if os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                total += _bytes_sent_by(int(name))
    return total


def _bytes_sent_by(number: int) -> int:
    with socket.socket(fileno=os.dup(number)) as connection:
        if connection.type != socket.SOCK_STREAM or connection.family == socket.AF_UNIX:
            return 0
        facts = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)
    return struct.unpack_from("Q", facts, BYTES_SENT_AT)[0]


def accumulate(model: Callable, batch: dict, micro_batches: int) -> None:
    for _ in range(micro_batches):
        model(**batch).loss.backward()


class OncePerStep:
    """Ranks accumulate for themselves; sums go to the leader and parameters come back. `bytes`: of one step."""

    def __init__(self, model: LeanAlbertForPreTraining, batch: dict, micro_batches: int):
        self.model, self.batch, self.micro_batches = model, batch, micro_batches
        self.parameters = list(model.parameters())
        self.exchange, self.accumulator = Exchange(self.parameters), Accumulator(self.parameters)
        sent = sum(p.numel() * p.element_size() for p in self.parameters)
        self.bytes = 2 * sent * (dist.get_world_size() - 1) / dist.get_world_size()

    def __call__(self) -> None:
        self.accumulator.reset()
        accumulate(self.model, self.batch, self.micro_batches)
        self.exchange.sum_to_leader(self.accumulator.sums())
        self.exchange.load_from_leader()
        self.accumulator.reset()


class Ddp:
    """DistributedDataParallel: gradients are averaged in every backward pass, or in the last. `bytes`: of one step."""

    def __init__(self, model: LeanAlbertForPreTraining, batch: dict, micro_batches: int, *, every: bool):
        self.batch, self.micro_batches, self.every = batch, micro_batches, every
        self.ddp = DistributedDataParallel(model)
        self.bytes = 0.0
        # a hook with annotations must have them as types, which they are not in this file
        self.ddp.register_comm_hook(None, lambda _group, bucket: self._exchange(bucket))

    def _exchange(self, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
        ranks = dist.get_world_size()
        self.bytes += 2 * bucket.buffer().numel() * bucket.buffer().element_size() * (ranks - 1) / ranks
        return allreduce_hook(dist.group.WORLD, bucket)

    def __call__(self) -> None:
        self.bytes = 0.0
        self.ddp.zero_grad()
        with contextlib.nullcontext() if self.every else self.ddp.no_sync():
            accumulate(self.ddp, self.batch, self.micro_batches - 1)
        accumulate(self.ddp, self.batch, 1)
        self.ddp.zero_grad()


if __name__ == "__main__":
    main()
