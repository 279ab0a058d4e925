"""The gate and its hand-written gradient."""

from __future__ import annotations

import pytest
import torch

from model.activation_lean_albert import activation_function, gate


@pytest.mark.parametrize("name", ["gelu_fused", "gelu", "relu"])
def test_gate_gradient_agrees_with_finite_differences(name):
    both = torch.randn(3, 10, dtype=torch.float64, requires_grad=True)
    activation = activation_function(name)
    assert torch.autograd.gradcheck(lambda x: gate(x, activation), both)
    first, second = both.chunk(2, dim=-1)
    torch.testing.assert_close(gate(both, activation), activation(first) * second)


def test_fused_gelu_is_the_tanh_approximation():
    x = torch.linspace(-6, 6, 1001, dtype=torch.float64)
    expected = 0.5 * x * (1 + torch.tanh(0.79788456 * (x + 0.044715 * x**3)))
    torch.testing.assert_close(activation_function("gelu_fused")(x), expected, rtol=1e-7, atol=1e-7)


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="swishy"):
        activation_function("swishy")
