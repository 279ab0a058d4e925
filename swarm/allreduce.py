"""hivemind's all-reduce, made to survive the death of a member in the middle of it.

Two things in hivemind 1.1.12 make everyone wait for the whole `allreduce_timeout` after one death:

- All who send to a reducer await one future per part. When one of them dies, its task is cancelled, and cancelling a
  task cancels the future that it awaits: the others never get that part.
- Opening a stream to a reducer has no time limit.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import torch
from hivemind.averaging.allreduce import AllReduceRunner
from hivemind.averaging.partition import TensorPartReducer
from hivemind.p2p import PeerID, StubBase
from hivemind.proto import averaging_pb2


class ShieldedReducer(TensorPartReducer):
    """A reducer whose parts are finished for the others when one of those who wait for them is cancelled."""

    async def accumulate_part(
        self, sender_index: int, part_index: int, tensor_part: torch.Tensor, weight: float = 1.0
    ) -> torch.Tensor:
        """Add one sender's part, wait for the other senders, and return the average."""
        return await asyncio.shield(super().accumulate_part(sender_index, part_index, tensor_part, weight))


class SteadfastAllReduce(AllReduceRunner):
    """One all-reduce in one group; waits for a silent member `sender_timeout` at most, whatever it is silent about."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        shapes = tuple(part.shape for part in self.parts_for_local_averaging)
        self.tensor_part_reducer = ShieldedReducer(shapes, len(self.sender_peer_ids))

    def _get_peer_stub(self, peer: PeerID) -> Any:
        return _PromptStub(super()._get_peer_stub(peer), self.sender_timeout)


class _PromptStub:
    """Opens streams within a time limit."""

    def __init__(self, stub: StubBase, timeout: float | None):
        self._stub, self._timeout = stub, timeout

    async def rpc_aggregate_part(
        self, inputs: AsyncIterator[averaging_pb2.AveragingData]
    ) -> AsyncIterator[averaging_pb2.AveragingData]:
        return await asyncio.wait_for(self._stub.rpc_aggregate_part(inputs), self._timeout)
