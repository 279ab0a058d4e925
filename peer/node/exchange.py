"""The two exchanges of tensors inside a node, once per global step: sums to the leader, parameters back.

Tensors are packed into buckets; a bucket is on its way while the next one is packed. Everything is fp32 but the facts,
which are fp64 so that counts are exact. Every rank must call the same method at the same time: `peer.node.orders`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, ReduceOp, Store

LEADER = 0
BUCKET_BYTES = 32 * 2**20
# everybody is known to be there before an exchange begins
TIMEOUT = timedelta(minutes=10)


def open_group(store: Store, device: torch.device, rank: int, ranks: int) -> None:
    """Connect all ranks: NCCL between GPUs, gloo over loopback else; blocks until all of them have called."""
    on_gpu = device.type == "cuda"
    # gloo would look for the interface of the host's name, which may not even resolve; NCCL would listen on one that
    # others can reach
    os.environ.setdefault("NCCL_SOCKET_IFNAME" if on_gpu else "GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group(
        "nccl" if on_gpu else "gloo",
        store=PrefixStore("group", store),
        rank=rank,
        world_size=ranks,
        timeout=TIMEOUT,
        device_id=device if on_gpu else None,
    )


def close_group() -> None:
    """Disconnect; all other ranks have to do the same."""
    if dist.is_initialized():
        dist.destroy_process_group()


class Exchange:
    """Exchanges tensors of the parameters' shapes between the ranks of a node.

    :param parameters: of the model of this rank, on its device, in the same order everywhere
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter]):
        self.parameters = list(parameters)
        self._device = self.parameters[0].device

    def sum_to_leader(self, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Sum over all ranks, in the leader; what the others get back means nothing."""
        flying = []
        for bucket in buckets(tensors):
            packed = torch.cat([tensors[index].reshape(-1) for index in bucket])
            flying.append((bucket, packed, dist.reduce(packed, LEADER, async_op=True)))
        sums: list[torch.Tensor] = []
        for bucket, packed, work in flying:
            work.wait()
            parts = packed.split([tensors[index].numel() for index in bucket])
            sums += [part.view_as(tensors[index]) for part, index in zip(parts, bucket, strict=True)]
        return sums

    def sum_facts(self, facts: Sequence[float]) -> list[float]:
        """Numbers summed over all ranks, in the leader."""
        return self._reduced(facts, ReduceOp.SUM)

    def lowest(self, value: float) -> float:
        """The lowest of all ranks' values, in the leader."""
        return self._reduced([value], ReduceOp.MIN)[0]

    def load_from_leader(self) -> None:
        """Overwrite the parameters of all ranks by the leader's."""
        flying = []
        with torch.no_grad():
            for bucket in buckets(self.parameters):
                packed = torch.cat([self.parameters[index].reshape(-1) for index in bucket])
                flying.append((bucket, packed, dist.broadcast(packed, LEADER, async_op=True)))
            for bucket, packed, work in flying:
                work.wait()
                parts = packed.split([self.parameters[index].numel() for index in bucket])
                for part, index in zip(parts, bucket, strict=True):
                    self.parameters[index].copy_(part.view_as(self.parameters[index]))

    def _reduced(self, values: Sequence[float], operation: ReduceOp.RedOpType) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=self._device)
        dist.reduce(tensor, LEADER, op=operation)
        return tensor.tolist()


def buckets(tensors: Sequence[torch.Tensor], limit: int = BUCKET_BYTES) -> Iterator[list[int]]:
    """Indices of consecutive tensors that together have at most `limit` bytes, or of a single larger one.

    >>> list(buckets([torch.zeros(2), torch.zeros(2), torch.zeros(9), torch.zeros(1)], limit=16))
    [[0, 1], [2], [3]]
    """
    bucket: list[int] = []
    held = 0
    for index, tensor in enumerate(tensors):
        size = tensor.numel() * tensor.element_size()
        if bucket and held + size > limit:
            yield bucket
            bucket, held = [], 0
        bucket.append(index)
        held += size
    if bucket:
        yield bucket
