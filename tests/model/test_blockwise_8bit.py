"""8-bit codes: bitsandbytes' codebook, and always the nearest entry."""

from __future__ import annotations

import pytest
import torch

from model.blockwise_8bit import BLOCK, codebook, dequantize, quantize

CPU = torch.device("cpu")


def hard_values(signed):
    """Heavy tails over ten decades, zeros, and every midpoint with its two neighbouring floats."""
    tails = torch.randn(32, BLOCK) * 10 ** (torch.rand(32, BLOCK) * -10)
    middles = torch.zeros(3, BLOCK)
    table = codebook(signed, CPU)
    middle = ((table[1:].double() + table[:-1].double()) / 2).float()
    middles[0, :255] = middle
    middles[1, :255] = middle.nextafter(torch.tensor(torch.inf))
    middles[2, :255] = middle.nextafter(torch.tensor(-torch.inf))
    middles[:, -1] = 1
    values = torch.cat((tails, middles, torch.zeros(1, BLOCK)))
    return values if signed else values.abs()


@pytest.mark.parametrize("signed", [True, False])
def test_every_code_is_the_nearest(signed):
    values = hard_values(signed)
    codes, absmax = quantize(values, signed=signed)
    scaled = values / absmax.clamp(min=1e-30)[:, None]
    table = codebook(signed, CPU).double()
    expected = torch.bucketize(scaled.double(), (table[1:] + table[:-1]) / 2)
    assert torch.equal(codes.long(), expected)


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("size", [BLOCK, 777])
def test_decoding_gives_the_codebook_entry_times_the_block_scale(signed, size):
    values = hard_values(signed)[:, :size]
    codes, absmax = quantize(values, signed=signed)
    expected = codebook(signed, CPU)[codes.long()] * absmax[:, None]
    assert torch.equal(dequantize(codes, absmax, signed=signed), expected)
    assert torch.equal(absmax, values.abs().amax(1))


def test_blocks_of_zeros_stay_zeros():
    for signed in (True, False):
        codes, absmax = quantize(torch.zeros(2, BLOCK), signed=signed)
        assert not dequantize(codes, absmax, signed=signed).any()


@pytest.mark.parametrize("signed", [True, False])
def test_codebook_is_that_of_bitsandbytes(signed):
    functional = pytest.importorskip("bitsandbytes.functional")
    theirs = functional.create_dynamic_map(signed)
    ours = codebook(signed, CPU)
    assert torch.equal(ours[1:], theirs[1:])
    assert ours[0] == -1
