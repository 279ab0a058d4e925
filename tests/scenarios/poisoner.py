"""`peer join` of an invited peer that spoils its gradients just before they leave: ARTEL_TEST_POISON says how."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch

from peer.global_step import GlobalStep
from swarm.rounds import RoundKind, RoundResult

POISONS: dict[str, Callable[[torch.Tensor], object]] = {
    "nan": lambda buffer: buffer.fill_(float("nan")),
    "x1000": lambda buffer: buffer.mul_(1000.0),
    "flip": lambda buffer: buffer.neg_(),
    "huge": lambda buffer: buffer.fill_(3e38),
}


def main() -> None:
    """The `peer` command, with poison."""
    poison = POISONS[os.environ["ARTEL_TEST_POISON"]]
    honest = GlobalStep._run_round

    def spoil(self: GlobalStep, kind: RoundKind, **how: Any) -> RoundResult:
        if kind is RoundKind.GRADIENTS:
            for buffer in self.buffers:
                poison(buffer)
        return honest(self, kind, **how)

    GlobalStep._run_round = spoil  # type: ignore[method-assign]
    from peer.cli import main as peer

    peer()
