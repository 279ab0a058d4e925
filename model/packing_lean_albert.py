"""Several sequences in one row: where they lie, and attention that stays within each of them.

Shapes: B batch, L length, N = B x L positions of all rows, H heads, K head size. A run is a stretch of a row whose
tokens carry the same sequence id; padding (id 0) makes runs too, so that every position belongs to exactly one.
With attention run by run its cost is the sum of the squares of their lengths; under a block-diagonal mask, which
kernels compute densely, it is the square of the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

# torch 2.10 and later
HAS_VARIABLE_LENGTH_KERNEL = find_spec("torch.nn.attention.varlen") is not None
# what the variable-length kernel (FlashAttention 2) is built for
FLASH_CAPABILITY, FLASH_HEAD_SIZE = (8, 0), 256


@dataclass(frozen=True, eq=False)
class Runs:
    """Where the runs lie in the N positions: their lengths, and [runs + 1] int32 boundaries on the device.

    No run is longer than `row_length`, which unlike the longest of them is the same from batch to batch.
    """

    lengths: tuple[int, ...]
    boundaries: torch.Tensor
    row_length: int


def run_numbers(sequence_ids_BL: torch.Tensor) -> torch.Tensor:
    """[B, L]: which run of its row a position belongs to, from 0 on; an id that comes back is a new run."""
    changed = sequence_ids_BL[:, 1:] != sequence_ids_BL[:, :-1]
    return nn.functional.pad(changed.cumsum(dim=1), (1, 0))


def positions_of(sequence_ids_BL: torch.Tensor) -> torch.Tensor:
    """Positions [B, L] that restart at 0 wherever the sequence id changes."""
    index = torch.arange(sequence_ids_BL.shape[1], device=sequence_ids_BL.device).expand_as(sequence_ids_BL)
    starts = torch.zeros_like(index)
    changed = sequence_ids_BL[:, 1:] != sequence_ids_BL[:, :-1]
    starts[:, 1:] = torch.where(changed, index[:, 1:], 0)
    return index - starts.cummax(dim=1).values


def first_rows(shape: torch.Size, sequence_ids_BL: torch.Tensor | None, device: torch.device) -> torch.Tensor:
    """Flat positions of the first token of every sequence, in reading order."""
    if sequence_ids_BL is None:
        return torch.arange(shape[0], device=device) * shape[1]
    return ((positions_of(sequence_ids_BL) == 0) & (sequence_ids_BL > 0)).flatten().nonzero().flatten()


def runs_of(sequence_ids_BL: torch.Tensor, kept: torch.Tensor | None = None) -> Runs:
    """The runs of all rows in reading order, or of the flat positions `kept`; a row's end also ends a run."""
    starts = (positions_of(sequence_ids_BL) == 0).flatten()
    count = starts.numel()
    if kept is not None:
        numbers, count = starts.cumsum(0)[kept], kept.numel()
        starts = nn.functional.pad(numbers.diff() > 0, (1, 0), value=True)
    boundaries = nn.functional.pad(starts.nonzero().flatten(), (0, 1), value=count)
    return Runs(tuple(boundaries.diff().tolist()), boundaries.int(), sequence_ids_BL.shape[1])


def kept_positions(sequence_ids_BL: torch.Tensor, wanted: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat positions of all but padding, ascending, and where among them the `wanted` positions stand.

    A wanted position stays, though it be padding.
    """
    stays = (sequence_ids_BL > 0).flatten()
    stays[wanted] = True
    return stays.nonzero().flatten(), stays.cumsum(0)[wanted] - 1


def can_attend_by_run(device: torch.device, dtype: torch.dtype, head_size: int, dropout: float) -> bool:
    """Whether attention run by run is to be had here, and better than a mask.

    A CPU takes one run after the other. An accelerator needs one kernel for all of them, which exists in half
    precision and without dropout; under `torch.compile` of a whole model the lengths are not known.
    """
    if torch.compiler.is_compiling():
        return False
    if device.type == "cpu":
        return True
    return (
        device.type == "cuda"
        and HAS_VARIABLE_LENGTH_KERNEL
        and dtype in (torch.float16, torch.bfloat16)
        and dropout == 0
        and head_size % 8 == 0
        and head_size <= FLASH_HEAD_SIZE
        and torch.version.hip is None
        and torch.cuda.get_device_capability(device) >= FLASH_CAPABILITY
    )


def attend_by_run(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, runs: Runs, dropout: float
) -> torch.Tensor:
    """Mix values [1, H, N, K] within each run; the result's memory is that of [1, N, H, K]."""
    if query.device.type == "cpu":
        attend = _one_after_the_other
        if torch.compiler.is_compiling():
            # every batch has other lengths: a graph of them would be compiled again each time. Not as a decorator,
            # which loads the compiler in every process that only imports this
            attend = torch.compiler.disable(attend)
        return attend(query, key, value, runs, dropout)
    return _in_one_kernel(query, key, value, runs)


def _one_after_the_other(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, runs: Runs, dropout: float
) -> torch.Tensor:
    parts = zip(*(tensor.split(runs.lengths, dim=2) for tensor in (query, key, value)), strict=True)
    attend = nn.functional.scaled_dot_product_attention
    mixed = [attend(query, key, value, dropout_p=dropout) for query, key, value in parts]
    return torch.cat([part.transpose(1, 2) for part in mixed], dim=1).transpose(1, 2)


def _in_one_kernel(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, runs: Runs) -> torch.Tensor:
    # here, because it loads the compiler, and only a GPU needs it
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    mixed: Any = varlen_attn(
        query, key, value, runs.boundaries, runs.boundaries, runs.row_length, runs.row_length
    )
    return mixed.transpose(0, 1)[None]
