"""Measuring a training step, its memory, and the fp32 check."""

from __future__ import annotations

import pytest
import torch

from model.fp32_matmul import allow_onednn_fp32
from model.peak_memory import PeakMemory
from model.training_step import StepSetting, measure


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_setting_has_a_cost(small_config, precision):
    cost = measure(StepSetting(small_config(), 4, 16, precision), warmup=1, repetitions=1)
    assert cost.samples_per_second == pytest.approx(4 / cost.seconds)
    assert cost.tokens_per_second == pytest.approx(64 / cost.seconds)


def test_an_unknown_precision_is_refused(small_config):
    with pytest.raises(ValueError, match="fp8"):
        measure(StepSetting(small_config(), 1, 8, "fp8"))


def test_peak_memory_sees_what_was_freed_again():
    memory = PeakMemory("cpu")
    block = torch.ones(64 * 2**20, dtype=torch.uint8)
    del block
    assert memory.peak_bytes() > 50 * 2**20


def test_fp32_products_stay_fp32():
    before = torch.get_float32_matmul_precision()
    try:
        allow_onednn_fp32()
        left, right = torch.randn(300, 400), torch.randn(400, 200)
        exact = left.double() @ right.double()
        assert ((left @ right) - exact).abs().max() / exact.abs().max() < 5e-6
    finally:
        torch.set_float32_matmul_precision(before)
