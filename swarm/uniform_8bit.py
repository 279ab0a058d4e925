"""hivemind's 8-bit codec, several times as fast and closer to the values: the same messages, by compiled loops.

Codes grow with the root of a value's distance from the mean, up to the furthest value, and each code stands for the
mean of the values that got it. hivemind's own codes are equally far apart and end at three standard deviations, which
spoils gradients with heavy tails, as those of rare words are; its decoder reads ours. It takes several times as long
(`python -m benchmarks.codec`), and depends on what torch is about to drop and numpy 2.4 has dropped.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from hivemind.compression import CompressionInfo, Uniform8BitQuantization, serialization
from hivemind.proto import runtime_pb2

CODES = 256
CODEBOOK_AT = 8
CODES_AT = CODEBOOK_AT + 4 * CODES
# on either side of the mean
STEPS = CODES // 2 - 1


class Uniform8Bit(Uniform8BitQuantization):
    """Codes fp32 tensors on the CPU.

    >>> codec = Uniform8Bit()
    >>> message = codec.compress(torch.tensor([1.0, 1.0, 3.0]), CompressionInfo.from_tensor(torch.zeros(3)))
    >>> codec.extract(message).tolist()
    [1.0, 1.0, 3.0]
    """

    def quantize(self, tensor: torch.Tensor, allow_inplace: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Codes (uint8, the tensor's shape) and what they stand for (fp32 [256])."""
        from swarm.uniform_8bit_kernel import encode, mean_and_reach, means_by_code

        values = tensor.detach().to(torch.float32).contiguous().view(-1).numpy()
        codes = np.empty(values.shape, np.uint8)
        mean, reach = mean_and_reach(values)
        encode(values, mean, np.float32(STEPS**2 / (reach or math.inf)), codes)
        return codes.reshape(tuple(tensor.shape)), means_by_code(values, codes)

    def extract(self, serialized_tensor: runtime_pb2.Tensor) -> torch.Tensor:
        """The tensor of a message; raises ValueError if the message cannot be one of this codec."""
        from swarm.uniform_8bit_kernel import decode

        buffer, shape = serialized_tensor.buffer, tuple(serialized_tensor.size)
        fits = len(buffer) == CODES_AT + math.prod(shape) and min(shape, default=0) >= 0
        if not fits or int.from_bytes(buffer[:CODEBOOK_AT], "little") != CODES:
            raise ValueError(f"{len(buffer)} bytes are no {list(shape)} values in 8-bit codes")
        if serialized_tensor.dtype != "float32":
            raise ValueError(f"8-bit codes of {serialized_tensor.dtype[:20]} where float32 was expected")
        codebook = np.frombuffer(buffer, np.float32, CODES, offset=CODEBOOK_AT)
        tensor = torch.empty(shape)
        decode(np.frombuffer(buffer, np.uint8, offset=CODES_AT), codebook, tensor.view(-1).numpy())
        return tensor


def decode_with_ours() -> None:
    """Let hivemind decode what comes over the network in this process with this codec."""
    serialization._BASE_COMPRESSION_TYPES["UNIFORM_8BIT"] = Uniform8Bit()


def warm_up() -> None:
    """Load, or compile, what coding and decoding need, so that the first round does not wait for it."""
    codec, tensor = Uniform8Bit(), torch.zeros(CODES)
    codec.extract(codec.compress(tensor, CompressionInfo.from_tensor(tensor)))
