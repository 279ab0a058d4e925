"""Block-wise 8-bit storage of optimizer moments, each value as its nearest code.

Dettmers et al. 2021 (arXiv:2110.02861): blocks of 4096 values, scaled by the block's largest magnitude,
stored as indices into a codebook of 256 dynamically spaced values. bitsandbytes has the same codebook, but
its CPU kernel never emits the small codes; this quantizer is exact. As in the release that trained the
published weights, entry 0 of both codebooks is -1: so the second moment never decodes to exactly 0.

The nearest code is found without a search. A float's leading 16 bits select a bucket so narrow that at
most one midpoint between two codes lies in it; one table entry holds the code at the bucket's start and
the distance to that midpoint, so that adding the float's trailing 16 bits carries into the code exactly
when the value lies beyond the midpoint. The bits of negative floats grow away from 0: there the table
counts codes from the other end, and the sign turns the count round.
"""

from __future__ import annotations

from functools import cache

import torch

BLOCK = 4096
DECADES = 7
# as tensors: torch turns a Python number into one, and casts it, at every bitwise operation
SIGN_SHIFT, HALF_SHIFT, LOWER_HALF = (torch.tensor(n, dtype=torch.int32) for n in (31, 16, 0xFFFF))
BUCKETS = 2**15  # for each sign


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


@cache
def bucket_table(signed: bool, device: torch.device) -> torch.Tensor:
    """Per bucket: code at its start << 16, plus 65536 - the offset of the midpoint in it, less the bucket << 16.

    The last term takes away the leading half of what is added, so that a value's bits can be added as they are.
    Negative buckets, of 255 - code, come before the positive ones; unsigned values have only the latter.
    """
    values = codebook(signed, torch.device("cpu")).double()
    midpoints = (values[:-1] + values[1:]) / 2
    below = midpoints < 0
    # the first float that is nearer to the upper code; a tie goes to the lower one
    table = _entries(_first_float(midpoints[~below], at_least=False), int(below.sum()), 0)
    if signed:
        away = (-midpoints[below]).flip(0)
        table = torch.cat((_entries(_first_float(away, at_least=True), int((~below).sum()), -(2**31)), table))
    return table.to(device)


def _first_float(magnitudes: torch.Tensor, *, at_least: bool) -> torch.Tensor:
    """Bits of the smallest float >= (or >) each of some positive doubles, as int64."""
    rounded = magnitudes.float()
    reached = rounded.double() >= magnitudes if at_least else rounded.double() > magnitudes
    return torch.where(reached, rounded, rounded.nextafter(torch.tensor(torch.inf))).view(torch.int32).long()


def _entries(thresholds: torch.Tensor, first_code: int, sign_bits: int) -> torch.Tensor:
    """Table of the buckets of one sign, int32; the code is `first_code` at 0 and one more from each threshold on."""
    starts = torch.arange(BUCKETS) * 2**16
    passed = torch.searchsorted(thresholds, starts, right=True)
    following = torch.cat((thresholds, torch.tensor([2**40])))[passed]
    offsets = (following - starts).clamp(max=2**16)
    entries = (first_code + passed) * 2**16 + 2**16 - offsets - starts - sign_bits
    return ((entries + 2**31) % 2**32 - 2**31).int()


class Scratch:
    """Integer work space for blocks of one shape; reusing it keeps the work in cache."""

    def __init__(self, shape: tuple[int, int], device: torch.device) -> None:
        self.index = torch.empty(shape, dtype=torch.int32, device=device)
        self.flat_index = self.index.view(-1)
        self.entries = torch.empty(shape, dtype=torch.int32, device=device)
        self.flat_entries = self.entries.view(-1)
        self.pairs = self.flat_index[: self.entries.numel() // 2]
        self.signs = torch.empty(shape, dtype=torch.uint8, device=device)


def quantize(
    values: torch.Tensor, codes: torch.Tensor, absmax: torch.Tensor, scratch: Scratch, *, signed: bool
) -> None:
    """Store fp32 `values` [blocks, size] as nearest `codes` (uint8, same shape) and `absmax` [blocks].

    `values` must not be negative unless `signed`, and are destroyed.
    """
    torch.amax(values, dim=1, out=absmax)
    if signed:
        torch.maximum(absmax, values.amin(dim=1).neg_(), out=absmax)
    # a block of zeros has absmax 0, and stays zeros whatever it is divided by
    values.div_(absmax.clamp(min=torch.finfo(torch.float32).tiny)[:, None])
    bits = values.view(torch.int32)
    if signed:
        scratch.signs.copy_(torch.bitwise_right_shift(bits, SIGN_SHIFT, out=scratch.index))
    torch.bitwise_right_shift(bits, HALF_SHIFT, out=scratch.index)
    if signed:
        scratch.index.add_(BUCKETS)
    table = bucket_table(signed, values.device)
    torch.index_select(table, 0, scratch.flat_index, out=scratch.flat_entries)
    codes.copy_(scratch.entries.add_(bits).bitwise_right_shift_(HALF_SHIFT))
    if signed:
        codes.bitwise_xor_(scratch.signs)


def dequantize(
    codes: torch.Tensor, scale: torch.Tensor, scratch: Scratch, out: torch.Tensor, *, signed: bool
) -> None:
    """Write the entries of `codes` [blocks, size] times `scale` [blocks] into `out` (same shape, contiguous)."""
    if codes.numel() % 2:
        scratch.index.copy_(codes)
        torch.index_select(codebook(signed, codes.device), 0, scratch.flat_index, out=out.view(-1))
    else:
        scratch.pairs.copy_(codes.view(-1).view(torch.int16)).bitwise_and_(LOWER_HALF)
        table = pair_codebook(signed, codes.device)
        torch.index_select(table, 0, scratch.pairs, out=out.view(-1).view(torch.float64))
    out.mul_(scale[:, None])
