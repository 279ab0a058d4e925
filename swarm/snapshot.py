"""A training state at one moment, as it travels from a donor to a newcomer, and what its tensors must look like."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

BRANCH_HEX_DIGITS = 16


class Layout(NamedTuple):
    """Shape and type of one tensor.

    >>> layout = Layout.of(torch.zeros(2, 3))
    >>> layout.bytes, str(layout)
    (24, 'float32[2, 3]')
    """

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Layout:
        """That of a tensor."""
        return cls(tuple(tensor.shape), tensor.dtype)

    @property
    def bytes(self) -> int:
        """Size of its values."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')}{list(self.shape)}"


class Snapshot(NamedTuple):
    """Global step, branch and tensors that belong together.

    :param branch: names the averaging round that led to this step. Peers of one swarm have the same; two parts of a
        swarm that trained apart have different ones, even at the same step
    :param tensors: parameters and optimizer moments in a fixed order; fp32, or uint8 of moments in codes
    """

    step: int
    branch: str
    tensors: Sequence[torch.Tensor]
