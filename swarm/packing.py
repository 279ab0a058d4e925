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

    `bytes`: size of the buffer; `pieces`: how many it has, the last one may be shorter; `ends`: of the tensors.

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
        self._layouts, self.ends, self.bytes = list(layouts), list[int](), 0
        for layout in self._layouts:
            self.bytes = -(-self.bytes // ALIGNMENT) * ALIGNMENT + layout.bytes
            self.ends.append(self.bytes)
        self.pieces = -(-self.bytes // PIECE_BYTES)

    def buffer(self) -> torch.Tensor:
        """A new one in shared memory, so that it goes to another process of ours without a copy; all zeros."""
        # as torch's own data loader does: `share_memory_` would copy zeros
        storage = torch.UntypedStorage._new_shared(self.bytes)
        return torch.empty(0, dtype=torch.uint8).set_(storage)

    def tensors_in(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        """The tensors, as views of the buffer."""
        return [
            buffer[end - layout.bytes : end].view(layout.dtype).view(layout.shape)
            for end, layout in zip(self.ends, self._layouts, strict=True)
        ]


def piece_of(buffer: torch.Tensor, number: int) -> torch.Tensor:
    """The bytes of a piece, as a view of the buffer; raises IndexError if it has no such piece."""
    if not 0 <= number * PIECE_BYTES < len(buffer):
        raise IndexError(f"there is no piece {number}")
    return buffer[number * PIECE_BYTES : (number + 1) * PIECE_BYTES]
