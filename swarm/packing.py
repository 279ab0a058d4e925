"""Tensors side by side in one buffer of bytes, which travels in pieces of equal size, in any order."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from swarm.snapshot import Layout

PIECE_BYTES = 2**16
# a view as another type must begin at a multiple of its size
ALIGNMENT = 16


class Packing:
    """Where tensors of these layouts lie in the buffer.

    `bytes`: size of the buffer; `pieces`: how many it has; the last one may be shorter.

    >>> packing = Packing([Layout((3,)), Layout((2, 2), torch.uint8)])
    >>> packing.bytes, packing.pieces
    (20, 1)
    >>> buffer = packing.buffer()
    >>> first, second = packing.tensors_in(buffer)
    >>> second.fill_(7).shape
    torch.Size([2, 2])
    >>> piece_of(buffer, 0)[16:].tolist()
    [7, 7, 7, 7]
    """

    def __init__(self, layouts: Sequence[Layout]):
        self._layouts, self._starts, self.bytes = list(layouts), list[int](), 0
        for layout in self._layouts:
            start = -(-self.bytes // ALIGNMENT) * ALIGNMENT
            self._starts.append(start)
            self.bytes = start + layout.bytes
        self.pieces = -(-self.bytes // PIECE_BYTES)

    def buffer(self) -> torch.Tensor:
        """A new one in shared memory, so that it goes to another process of ours without a copy; all zeros."""
        return torch.zeros(self.bytes, dtype=torch.uint8).share_memory_()

    def tensors_in(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """The tensors, as views of the buffer."""
        return [
            buffer[start : start + layout.bytes].view(layout.dtype).view(layout.shape)
            for start, layout in zip(self._starts, self._layouts, strict=True)
        ]


def piece_of(buffer: torch.Tensor, number: int) -> torch.Tensor:
    """The bytes of a piece, as a view of the buffer; raises IndexError if it has no such piece."""
    if not 0 <= number * PIECE_BYTES < len(buffer):
        raise IndexError(f"there is no piece {number}")
    return buffer[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
