"""The loops of `uniform_8bit`, compiled; import it where it is used (see `model.compiled`)."""

from __future__ import annotations

import numpy as np

from model.compiled import compiled
from swarm.uniform_8bit import CODES

MIDDLE = np.float32(CODES // 2)
LAST = np.float32(CODES - 1)
# one after the other, sums in the same bucket would each wait for the one before
LANES = 4


@compiled
def mean_and_deviation(values):  # type: ignore[no-untyped-def]
    """Mean and sample standard deviation of fp32 values; the latter is 0 of a single one."""
    total = np.float32(0)
    for i in range(values.size):
        total += values[i]
    mean = total / np.float32(values.size)
    squares = np.float32(0)
    for i in range(values.size):
        squares += (values[i] - mean) * (values[i] - mean)
    return mean, np.sqrt(squares / np.float32(max(values.size - 1, 1)))


@compiled
def encode(values, mean, codes_per_unit, codes):  # type: ignore[no-untyped-def]
    """Nearest of 256 codes, of which 128 stands for the mean; what lies beyond the last ones gets those."""
    for i in range(values.size):
        code = np.rint((values[i] - mean) * codes_per_unit) + MIDDLE
        codes[i] = np.uint8(np.int32(min(max(code, np.float32(0)), LAST)))


@compiled
def means_by_code(values, codes):  # type: ignore[no-untyped-def]
    """The mean of the values of each code [256]; 0 of none."""
    sums, counts = np.zeros((LANES, CODES), np.float32), np.zeros((LANES, CODES), np.int32)
    whole = values.size - values.size % LANES
    for i in range(0, whole, LANES):
        for lane in range(LANES):
            sums[lane, codes[i + lane]] += values[i + lane]
            counts[lane, codes[i + lane]] += 1
    for i in range(whole, values.size):
        sums[0, codes[i]] += values[i]
        counts[0, codes[i]] += 1
    means = np.zeros(CODES, np.float32)
    for code in range(CODES):
        count = counts[:, code].sum()
        if count:
            means[code] = sums[:, code].sum() / np.float32(count)
    return means


@compiled
def decode(codes, codebook, values):  # type: ignore[no-untyped-def]
    """Look every code up in the codebook [256]."""
    for i in range(codes.size):
        values[i] = codebook[codes[i]]
