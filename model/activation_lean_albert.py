"""Activations of LeanALBERT, and the gate act(first) * second with half of its memory.

The published `gelu_fused` is the tanh approximation of GELU (Hendrycks & Gimpel 2016).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers.activations import ACT2FN

TANH_GELUS = ("gelu_fused", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")

Activation = Callable[[torch.Tensor], torch.Tensor]


def activation_function(name: str) -> Activation:
    """The activation called `name`; raises ValueError for an unknown one."""
    if name in TANH_GELUS:
        return nn.GELU(approximate="tanh")
    if name not in ACT2FN:
        raise ValueError(f"hidden_act {name!r} is unknown; 'gelu_fused' is the published one")
    return ACT2FN[name]


def gate(both: torch.Tensor, activation: Activation) -> torch.Tensor:
    """act(first) * second of [first, second] side by side: [..., 2 I] -> [..., I]."""
    if isinstance(activation, nn.GELU) and activation.approximate == "tanh":
        return GeluGate.apply(both)
    first, second = both.chunk(2, dim=-1)
    return activation(first) * second


class GeluGate(torch.autograd.Function):
    """The gate with tanh GELU; only its input is kept, act(first) is computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, both: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(both)
        first, second = both.chunk(2, dim=-1)
        return nn.functional.gelu(first, approximate="tanh").mul_(second)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (both,) = ctx.saved_tensors
        first, second = both.chunk(2, dim=-1)
        result = torch.empty_like(both)
        for_first, for_second = result.chunk(2, dim=-1)
        torch.mul(nn.functional.gelu(first, approximate="tanh"), gradient, out=for_second)
        for_first.copy_(torch.ops.aten.gelu_backward(gradient * second, first, approximate="tanh"))
        return result
