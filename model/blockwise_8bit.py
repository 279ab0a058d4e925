"""Block-wise 8-bit storage of optimizer moments, each value as its nearest code.

Dettmers et al. 2021 (arXiv:2110.02861): blocks of 4096 values, scaled by the block's largest magnitude,
stored as indices into a codebook of 256 dynamically spaced values. bitsandbytes has the same codebook, but
its CPU kernel never emits the small codes; this quantizer is exact. As in the release that trained the
published weights, entry 0 of both codebooks is -1: so the second moment never decodes to exactly 0.

The nearest code is found without a search. A float's leading 16 bits select a bucket so narrow that at
most one midpoint between two codes lies in it; one table entry holds the code at the bucket's start and
the distance to that midpoint, so that adding the float's trailing 16 bits carries into the code exactly
when the value lies beyond the midpoint.
"""

from __future__ import annotations

from functools import cache

import torch

BLOCK = 4096
DECADES = 7
# as tensors: torch turns a Python number into one, and casts it, at every bitwise operation
SIGN_SHIFT, HALF_SHIFT, MAGNITUDE, LOWER_HALF = (
    torch.tensor(n, dtype=torch.int32) for n in (31, 16, 0x7FFFFFFF, 0xFFFF)
)


@cache
def codebook(signed: bool, device: torch.device) -> torch.Tensor:
    """The 256 values in [-1, 1], ascending, fp32."""
    values = [0.0, 1.0]
    for decade in range(DECADES):
        edges = torch.linspace(0.1, 1, 2 ** (decade + (0 if signed else 1)) + 1)
        means = (10.0 ** (decade - DECADES + 1) * (edges[:-1] + edges[1:]) / 2).tolist()
        values += means + ([-mean for mean in means] if signed else [])
    table = torch.tensor(sorted(values), dtype=torch.float32)
    table[0] = -1.0
    return table.to(device)


@cache
def pair_codebook(signed: bool, device: torch.device) -> torch.Tensor:
    """Two codes at once: entry first + 256 * second holds both values, as the halves of a float64."""
    values = codebook(signed, device)
    pairs = torch.stack((values.repeat(256), values.repeat_interleave(256)), dim=1).contiguous()
    return pairs.view(torch.float64).flatten()


def _ordered(bits: torch.Tensor) -> torch.Tensor:
    """Float bits (int32) as integers of the same order."""
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@cache
def bucket_table(signed: bool, device: torch.device) -> torch.Tensor:
    """Per bucket: the code at its start << 16, plus 65536 - the offset of the midpoint in it."""
    values = codebook(signed, torch.device("cpu")).double()
    midpoints = (values[:-1] + values[1:]) / 2
    rounded = midpoints.float()
    # the first float that is nearer to the upper code
    above = torch.where(rounded.double() > midpoints, rounded, rounded.nextafter(torch.tensor(torch.inf)))
    thresholds = _ordered(above.view(torch.int32)).long()
    starts = torch.arange(-(2**15), 2**15) * 2**16
    codes = torch.searchsorted(thresholds, starts, right=True)
    following = torch.cat((thresholds, torch.tensor([2**40])))[codes]
    offsets = (following - starts).clamp(max=2**16)
    return (codes * 2**16 + 2**16 - offsets).int().to(device)


class Scratch:
    """Integer work space for blocks of one shape; reusing it keeps the work in cache."""

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self.index = torch.empty(shape, dtype=torch.int32, device=device)
        self.flat_index = self.index.view(-1)
        self.entries = torch.empty(shape[0] * shape[1], dtype=torch.int32, device=device)
        # the third byte of a little-endian integer: what has been carried past its lower 16 bits
        self.floats = self.entries.view(torch.float32).view(shape)
        self.carried = self.entries.view(torch.uint8)[2::4].view(shape)
        self.pairs = self.flat_index[: self.entries.numel() // 2]


def quantize(
    values: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, scratch: Scratch, *, signed: bool
) -> None:
    """Store fp32 `values` [blocks, size] as nearest `codes` (uint8, same shape) and `absmax` [blocks].

    `values` must not be negative unless `signed`, and are destroyed.
    """
    torch.amax(torch.abs(values, out=scratch.floats) if signed else values, dim=1, out=absmax)
    # a block of zeros has absmax 0, and stays zeros whatever it is divided by
    values.div_(absmax.clamp(min=torch.finfo(torch.float32).tiny)[:, None])
    bits = values.view(torch.int32)
    if signed:
        torch.bitwise_right_shift(bits, SIGN_SHIFT, out=scratch.index)
        bits.bitwise_xor_(scratch.index.bitwise_and_(MAGNITUDE))
    torch.bitwise_right_shift(bits, HALF_SHIFT, out=scratch.index)
    scratch.index.add_(2**15)
    torch.index_select(bucket_table(signed, values.device), 0, scratch.flat_index, out=scratch.entries)
    scratch.entries.add_(bits.bitwise_and_(LOWER_HALF).view(-1))
    codes.copy_(scratch.carried)


def dequantize(
    codes: torch.Tensor, absmax: torch.Tensor, scratch: Scratch, out: torch.Tensor, *, signed: bool
) -> None:
    """Write the fp32 values of `codes` [blocks, size] into `out` (same shape, contiguous)."""
    if codes.numel() % 2:
        scratch.index.copy_(codes)
        torch.index_select(codebook(signed, codes.device), 0, scratch.flat_index, out=out.view(-1))
    else:
        scratch.pairs.copy_(codes.view(-1).view(torch.int16)).bitwise_and_(LOWER_HALF)
        table = pair_codebook(signed, codes.device)
        torch.index_select(table, 0, scratch.pairs, out=out.view(-1).view(torch.float64))
    out.mul_(absmax[:, None])
