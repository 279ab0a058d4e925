"""Block-wise 8-bit storage of optimizer moments, each value as its nearest code.

Dettmers et al. 2021 (arXiv:2110.02861): blocks of 4096 values, scaled by the block's largest magnitude,
stored as indices into a codebook of 256 dynamically spaced values. bitsandbytes has the same codebook, but
its CPU kernel never emits the small codes; this quantizer is exact. As in the release that trained the
published weights, entry 0 of both codebooks is -1: so the second moment never decodes to exactly 0.
Here it is written in torch's operations, for any device; `lamb_kernel` does the same for LAMB on a CPU.

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


def quantize(values: torch.Tensor, *, signed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Nearest codes (uint8, same shape) and absmax [blocks] of fp32 `values` [blocks, size]; not signed: none < 0."""
    absmax = values.abs().amax(dim=1)
    # a block of zeros has absmax 0, and stays zeros whatever it is divided by
    bits = (values / absmax.clamp(min=torch.finfo(torch.float32).tiny)[:, None]).view(torch.int32)
    buckets = (bits >> 16) + (BUCKETS if signed else 0)
    codes = (bucket_table(signed, values.device)[buckets] + bits) >> 16
    return ((codes ^ (bits >> 31)) & 0xFF).to(torch.uint8), absmax


def dequantize(codes: torch.Tensor, absmax: torch.Tensor, *, signed: bool) -> torch.Tensor:
    """The entries of `codes` [blocks, size] times `absmax` [blocks], fp32."""
    return codebook(signed, codes.device)[codes.int()] * absmax[:, None]
