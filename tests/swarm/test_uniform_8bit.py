"""The 8-bit codec: hivemind's messages, a smaller error, and nothing believed of what a stranger sends."""

from __future__ import annotations

import warnings

import pytest
import torch
from hivemind.compression import (
    CompressionInfo,
    Uniform8BitQuantization,
    deserialize_torch_tensor,
    serialization,
)
from hivemind.proto import runtime_pb2
from hypothesis import given
from hypothesis import strategies as st

from swarm.uniform_8bit import Uniform8Bit, decode_with_ours

CODEC = Uniform8Bit()


def message_of(tensor: torch.Tensor, codec: Uniform8BitQuantization = CODEC) -> runtime_pb2.Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about what hivemind calls
        return codec.compress(tensor, CompressionInfo.from_tensor(tensor))


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def heavy_tails(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator) * torch.rand(shape, generator=generator) ** 4 + 0.1


@pytest.mark.parametrize(
    ("tensor", "share"),
    [(heavy_tails(300, 401), 0.2), (normal(300, 401), 0.7)],
    ids=["heavy tails", "normal"],
)
def test_it_loses_less_than_hiveminds_and_each_decodes_the_other(tensor, share):
    theirs = Uniform8BitQuantization()
    errors = []
    for codec in (CODEC, theirs):
        message = message_of(tensor, codec)
        decoded = CODEC.extract(message)
        assert torch.equal(decoded, theirs.extract(message))
        errors.append(((decoded - tensor).norm() / tensor.norm()).item())
    assert errors[0] < share * errors[1]
    assert errors[0] < 0.02


@pytest.mark.parametrize("values", [[], [3.5], [2.0] * 7, [0.0] * 9, [1.0, 1.0, 1.0, 5.0]])
def test_few_or_equal_values_come_back_as_they_are(values):
    tensor = torch.tensor(values)
    assert torch.equal(CODEC.extract(message_of(tensor)), tensor)


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=300))
def test_no_value_leaves_the_range_of_those_that_were_coded(values):
    tensor = torch.tensor(values)
    decoded = CODEC.extract(message_of(tensor))
    slack = 1e-5 * tensor.abs().max()
    assert decoded.min() >= tensor.min() - slack
    assert decoded.max() <= tensor.max() + slack


@pytest.mark.parametrize("spoilt", [float("nan"), float("inf")])
def test_values_that_are_not_finite_stay_visible(spoilt):
    tensor = heavy_tails(1000)
    tensor[17] = spoilt
    assert not CODEC.extract(message_of(tensor)).isfinite().all()


@pytest.mark.parametrize(
    "changes",
    [
        {"buffer": b""},
        {"buffer": b"\x00" * 1040},
        {"size": [2**32 - 1]},
        {"size": [2**31, 2**31, 4]},
        {"size": [3]},
        {"dtype": "float64"},
        {"dtype": "no such type"},
    ],
)
def test_a_message_that_is_none_is_refused(changes):
    message = message_of(heavy_tails(4))
    fields = {"buffer": message.buffer, "size": list(message.size), "dtype": message.dtype, **changes}
    with pytest.raises(ValueError, match="8-bit codes"):
        CODEC.extract(runtime_pb2.Tensor(compression=message.compression, **fields))


def test_what_comes_over_the_network_is_decoded_by_it_where_told_so(monkeypatch):
    monkeypatch.setattr(serialization, "_BASE_COMPRESSION_TYPES", dict(serialization._BASE_COMPRESSION_TYPES))
    decode_with_ours()
    message = message_of(heavy_tails(4))
    message.size[0] = 3
    with pytest.raises(ValueError, match="8-bit codes"):
        deserialize_torch_tensor(message)
