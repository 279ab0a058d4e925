"""What both kinds of peers share: a model's shapes, a stand-in for computing, and counting bytes on the wire.

Two cores cannot compute for eight peers, so a micro-batch here is a sleep of its duration and leaves a gradient.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch

from swarm.spec import DataSpec, ModelSpec

SAMPLES = 8
LAYERS = {
    1: ModelSpec(hidden_size=256, intermediate_size=512, num_hidden_layers=1, num_attention_heads=4),
    16: ModelSpec(hidden_size=1024, intermediate_size=3072, num_hidden_layers=1),
    64: ModelSpec(hidden_size=2048, intermediate_size=6144, num_hidden_layers=1, embedding_size=256),
}
VOCABULARIES = {1: DataSpec(vocab_size=4096), 16: DataSpec(vocab_size=16384), 64: DataSpec(vocab_size=32768)}


class Computing:
    """Sleeps instead of computing; `seconds` of it in all.

    :param duration: of one micro-batch, in seconds
    """

    def __init__(self, parameters: list[torch.nn.Parameter], duration: float):
        self._parameters, self._duration = parameters, duration
        rng = torch.Generator().manual_seed(time.time_ns() % 2**31)
        self._gradients = [torch.randn(parameter.shape, generator=rng) for parameter in parameters]
        self.seconds = 0.0

    def micro_batch(self) -> None:
        """Take the time of one, and leave a gradient."""
        time.sleep(self._duration)
        self.seconds += self._duration
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            if parameter.grad is None:
                parameter.grad = gradient.clone()


def sent_bytes() -> int:
    """What this host has sent so far."""
    return int(Path("/sys/class/net/eth0/statistics/tx_bytes").read_text())


def hear() -> dict[str, Any]:
    """The driver's next word; when it is gone, so are we."""
    line = sys.stdin.readline()
    if not line:
        os._exit(1)
    return json.loads(line)


def say(**fields: object) -> None:
    """Answer the driver."""
    print(json.dumps(fields), flush=True)
