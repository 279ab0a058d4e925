"""The codecs that a run spec can name for what peers send each other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from hivemind.compression import (
    CompressionBase,
    CompressionInfo,
    Float16Compression,
    NoCompression,
    SizeAdaptiveCompression,
)

from swarm.low_rank import is_worth_it
from swarm.uniform_8bit import CODES, Uniform8Bit

# below this many values a codebook costs more than it saves, and small tensors (biases, norms) are sensitive
SMALL_TENSOR_VALUES = 2**16
# 256 codes over three standard deviations to either side
MAX_8BIT_ERROR = 0.1


CODEBOOK_BYTES = CODES * 4


def compressed_bytes(shape: Sequence[int], name: str, rank: int = 0) -> int:
    """Size of a tensor of this shape in the codec of this name, without its headers.

    :param rank: of the two factors that stand for a matrix in `low_rank`
    """
    values = math.prod(shape)
    if name == "low_rank" and is_worth_it(torch.Size(shape), rank):
        # the first factors exact, the second ones as other tensors of their size
        return 4 * rank * shape[0] + compressed_bytes((shape[1], rank), "8bit")
    if name in ("8bit", "low_rank") and values >= SMALL_TENSOR_VALUES:
        return values + CODEBOOK_BYTES
    return values * (4 if name == "none" else 2)


def compression_for(name: str) -> CompressionBase:
    """The codec behind a name in the run spec; for `low_rank` that of everything but the factors."""
    codecs: dict[str, Callable[[], CompressionBase]] = {
        "none": NoCompression,
        "float16": Float16Compression,
        "8bit": lambda: SizeAdaptiveCompression(
            threshold=SMALL_TENSOR_VALUES, less=Float16Compression(), greater_equal=Uniform8Bit()
        ),
    }
    return codecs["8bit" if name == "low_rank" else name]()


def why_8bit_fails() -> str | None:
    """Encode and decode a tensor as peers do when they average; what went wrong, or None.

    hivemind swallows what a codec raises in a round, where every peer then keeps its own values.
    """
    tensor = torch.linspace(-1.0, 1.0, SMALL_TENSOR_VALUES)
    codec = Uniform8Bit()
    try:
        restored = codec.extract(codec.compress(tensor, CompressionInfo.from_tensor(tensor)))
    except Exception as error:  # whatever numba or numpy raises in there is the answer
        return f"{type(error).__name__}: {error}"
    largest = (restored - tensor).abs().max().item()
    return None if largest < MAX_8BIT_ERROR else f"values are off by up to {largest:.3f}"
