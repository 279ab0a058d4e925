"""LAMB on moments in 8-bit codes, on a CPU: block by block decoded, advanced and encoded, compiled by numba.

By torch's operations this is some thirty passes over memory, and takes twice as long. What is stored are the codes of
`blockwise_8bit`. Import it where it is used (see `compiled`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch

from model.blockwise_8bit import BLOCK, BUCKETS, bucket_table, codebook
from model.compiled import compiled

SMALLEST = np.finfo(np.float32).tiny
CPU = torch.device("cpu")


class CodedMoment(NamedTuple):
    """One moment of some blocks: `codes` [n] and `absmax` [blocks], and the tables of its kind."""

    codes: Any
    absmax: Any
    codebook: Any
    buckets: Any


class Constants(NamedTuple):
    """What is the same for all values of a parameter in one step, as fp32 scalars; `rest` is 1 - `beta`."""

    gradient_scale: Any
    beta1: Any
    rest1: Any
    beta2: Any
    rest2: Any
    eps: Any
    weight_decay: Any


def coded_moment(codes: torch.Tensor, absmax: torch.Tensor, *, signed: bool) -> CodedMoment:
    """A moment as the kernel takes it; shares memory with the tensors, which are changed in place."""
    tables = codebook(signed, CPU), bucket_table(signed, CPU)
    return CodedMoment(codes.numpy(), absmax.numpy(), *(table.numpy() for table in tables))


def constants(
    gradient_scale: float, betas: tuple[float, float], eps: float, weight_decay: float
) -> Constants:
    """The same numbers in single precision."""
    beta1, beta2 = betas
    numbers = gradient_scale, beta1, 1 - beta1, beta2, 1 - beta2, eps, weight_decay
    return Constants(*(np.float32(number) for number in numbers))


@compiled
def advance_blocks(weights, gradient, mean, square, delta, given):  # type: ignore[no-untyped-def]
    """Update both moments [n], write the negative direction into `delta` [n], return |p|^2 and |delta|^2.

    :param weights: fp32 [n], as `gradient` and `delta`; `mean`, `square`: each a `CodedMoment`
    :param given: `Constants`
    """
    size = weights.size
    means, squares = np.empty(BLOCK, np.float32), np.empty(BLOCK, np.float32)
    weights_square, delta_square = 0.0, 0.0
    for block in range(mean.absmax.size):
        start, stop = block * BLOCK, min(size, (block + 1) * BLOCK)
        part, change = weights[start:stop], delta[start:stop]
        m, v = means[: stop - start], squares[: stop - start]
        _decode(mean.codes[start:stop], mean.codebook, mean.absmax[block], m)
        _decode(square.codes[start:stop], square.codebook, square.absmax[block], v)
        _advance(part, gradient[start:stop], m, v, change, given)
        weights_square += _square_norm(part)
        delta_square += _square_norm(change)
        mean.absmax[block] = _scale_to_one(m)
        square.absmax[block] = _scale_to_one(v)
        _encode_signed(m.view(np.int32), mean.buckets, mean.codes[start:stop])
        _encode_unsigned(v.view(np.int32), square.buckets, square.codes[start:stop])
    return weights_square, delta_square


# Each loop below is one that the compiler can turn into vector instructions, or that it better does not.


@compiled
def _decode(codes, table, absmax, values):  # type: ignore[no-untyped-def]
    for i in range(codes.size):
        values[i] = table[codes[i]]
    for i in range(codes.size):
        values[i] *= absmax


@compiled
def _advance(weights, gradient, mean, square, delta, given):  # type: ignore[no-untyped-def]
    for i in range(weights.size):
        slope = gradient[i] * given.gradient_scale
        m = mean[i] * given.beta1 + slope * given.rest1
        v = square[i] * given.beta2 + slope * slope * given.rest2
        mean[i], square[i] = m, v
        delta[i] = -(m / (np.sqrt(v) + given.eps) + given.weight_decay * weights[i])


@compiled
def _square_norm(values):  # type: ignore[no-untyped-def]
    total = np.float32(0)
    for i in range(values.size):
        total += values[i] * values[i]
    return total


@compiled
def _scale_to_one(values):  # type: ignore[no-untyped-def]
    """Divide by the largest magnitude, and return it."""
    largest = np.zeros(1, np.int32)
    bits = values.view(np.int32)
    found = np.int32(0)
    for i in range(
        bits.size
    ):  # as integers, which magnitudes are ordered as, and which have no NaN to look out for
        found = max(found, bits[i] & np.int32(0x7FFFFFFF))
    largest[0] = found
    absmax = largest.view(np.float32)[0]
    divisor = max(absmax, SMALLEST)
    for i in range(values.size):
        values[i] /= divisor
    return absmax


@compiled
def _encode_signed(bits, table, codes):  # type: ignore[no-untyped-def]
    for i in range(codes.size):
        # an unsigned index, which cannot count from the table's end
        bucket = (np.uint32(bits[i]) >> np.uint32(16)) ^ np.uint32(BUCKETS)
        codes[i] = np.uint8(((table[bucket] + bits[i]) >> 16) ^ (bits[i] >> 31))


@compiled
def _encode_unsigned(bits, table, codes):  # type: ignore[no-untyped-def]
    for i in range(codes.size):
        codes[i] = np.uint8((table[np.uint32(bits[i]) >> np.uint32(16)] + bits[i]) >> 16)
