"""How many bytes a run's peers send each other: follows from the run spec's model and codecs alone."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from swarm.spec import RunSpec

# bytes a value: fp16 is 2, uniform 8 bits with their codebook 1.013 (measured on hivemind 1.1.12)
_FULL, _HALF, _EIGHT_BITS = 4.0, 2.0, 1.013


@dataclass(frozen=True)
class TransferSizes:
    """Bytes on the wire of one copy of: the gradients, the parameters when re-averaged, a newcomer's whole state."""

    gradients: float
    parameters: float
    state: float
    values: int


def transfer_sizes(spec: RunSpec) -> TransferSizes:
    """What one peer of this run sends, from the shapes of its model; builds no weights."""
    counts = parameter_counts(spec)
    return TransferSizes(
        gradients=wire_bytes(counts, spec.averaging.gradient_compression),
        parameters=wire_bytes(counts, spec.averaging.state_compression),
        state=3 * _FULL * sum(counts),  # parameters and LAMB's two moments, uncompressed
        values=sum(counts),
    )


def wire_bytes(counts: Iterable[int], compression: str) -> float:
    """Bytes of tensors with these numbers of values under a codec of the run spec."""
    from swarm.codecs import SMALL_TENSOR_VALUES  # brings hivemind and torch, slow to import

    if compression == "8bit":
        return sum(count * (_EIGHT_BITS if count >= SMALL_TENSOR_VALUES else _HALF) for count in counts)
    return sum(counts) * (_HALF if compression == "float16" else _FULL)


def parameter_counts(spec: RunSpec) -> list[int]:
    """Values in each trained tensor of the run's model; the tokenizer is taken to have the size asked for."""
    import torch

    from swarm.training_state import build_model

    with torch.device("meta"):
        model = build_model(spec, vocab_size=spec.data.vocab_size, pad_token_id=0)
    return [math.prod(tensor.shape) for tensor in model.parameters() if tensor.requires_grad]
