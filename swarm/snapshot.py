"""A training state at one moment, as it travels from a donor to a newcomer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Snapshot(NamedTuple):
    """Global step, branch and tensors that belong together.

    :param branch: names the averaging round that led to this step. Peers of one swarm have the same; two parts of a
        swarm that trained apart have different ones, even at the same step
    :param tensors: parameters and optimizer moments in a fixed order, fp32 on the CPU
    """

    step: int
    branch: str
    tensors: Sequence[torch.Tensor]
