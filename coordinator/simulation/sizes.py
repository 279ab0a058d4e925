"""How many bytes a run's peers send each other: follows from the run spec's model and codecs alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from swarm.spec import RunSpec

FP32_BYTES = 4


@dataclass(frozen=True)
class TransferSizes:
    """Bytes on the wire of one copy of: the gradients, the parameters when re-averaged, a newcomer's whole state."""

    gradients: float
    parameters: float
    state: float
    values: int


def transfer_sizes(spec: RunSpec) -> TransferSizes:
    """What one peer of this run sends, from the shapes of its model; builds no weights."""
    # bring hivemind and torch, slow to import
    from model.lamb_state import moment_bytes
    from swarm.codecs import compressed_bytes

    shapes, averaging = parameter_shapes(spec), spec.averaging
    values = sum(math.prod(shape) for shape in shapes)
    codec, rank, bits = averaging.gradient_compression, averaging.rank, spec.training.moment_bits
    return TransferSizes(
        gradients=sum(compressed_bytes(shape, codec, rank) for shape in shapes),
        parameters=sum(compressed_bytes(shape, averaging.state_compression) for shape in shapes),
        state=FP32_BYTES * values + 2 * sum(moment_bytes(math.prod(shape), bits) for shape in shapes),
        values=values,
    )


def parameter_shapes(spec: RunSpec) -> list[tuple[int, ...]]:
    """Of each trained tensor of the run's model; the tokenizer is taken to have the size asked for."""
    import torch

    from swarm.training_state import build_model

    with torch.device("meta"):
        model = build_model(spec, vocab_size=spec.data.vocab_size, pad_token_id=0)
    return [tuple(tensor.shape) for tensor in model.parameters() if tensor.requires_grad]
