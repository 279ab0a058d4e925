"""The codecs that a run spec can name for what peers send each other."""

from __future__ import annotations

from collections.abc import Callable

from hivemind.compression import (
    CompressionBase,
    Float16Compression,
    NoCompression,
    SizeAdaptiveCompression,
    Uniform8BitQuantization,
)

# below this many values a codebook costs more than it saves, and small tensors (biases, norms) are sensitive
SMALL_TENSOR_VALUES = 2**16


CODEBOOK_BYTES = 256 * 4


def compressed_bytes(values: int, name: str) -> int:
    """Size of a tensor of so many values in the codec of this name, without its header."""
    if name == "8bit" and values >= SMALL_TENSOR_VALUES:
        return values + CODEBOOK_BYTES
    return values * (4 if name == "none" else 2)


def compression_for(name: str) -> CompressionBase:
    """The codec behind a name in the run spec."""
    codecs: dict[str, Callable[[], CompressionBase]] = {
        "none": NoCompression,
        "float16": Float16Compression,
        "8bit": lambda: SizeAdaptiveCompression(
            threshold=SMALL_TENSOR_VALUES, less=Float16Compression(), greater_equal=Uniform8BitQuantization()
        ),
    }
    return codecs[name]()
