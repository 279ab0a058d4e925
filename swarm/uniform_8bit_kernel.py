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
def mean_and_reach(values):  # type: ignore[no-untyped-def]
    """Mean of fp32 values, and the largest distance from it."""
    total = np.float32(0)
    for i in range(values.size):
        total += values[i]
    mean = total / np.float32(max(values.size, 1))
    reach = np.float32(0)
    for i in range(values.size):
        reach = max(reach, abs(values[i] - mean))
    return mean, reach


@compiled
def encode(values, mean, scale, codes):  # type: ignore[no-untyped-def]
    """Code 128 plus or minus the root of each value's scaled distance from the mean."""
    for i in range(values.size):
        distance = values[i] - mean
        root = np.rint(np.sqrt(abs(distance) * scale))
        code = MIDDLE + (root if distance >= 0 else -root)
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
