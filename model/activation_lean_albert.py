"""Activations of LeanALBERT, and the gate act(first) * second with half of its memory.

The published `gelu_fused` is the tanh approximation of GELU (Hendrycks & Gimpel 2016):
0.5 x (1 + tanh(u)) = x sigmoid(2 u) with u = sqrt(2 / pi) (x + 0.044715 x^3). Of both only the input is kept for the
gradient. On a CPU they are computed through the sigmoid, which costs a third of torch's tanh, and piece by
piece in the core's cache, so that the passes over a piece cost little; elsewhere by torch's own kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

TANH_GELUS = ("gelu_fused", "gelu_new", "gelu_fast", "gelu_pytorch_tanh")
CUBIC, STEEPNESS = 0.044715, 2 * math.sqrt(2 / math.pi)
# values a thread gets at a time: few enough for the cache, enough that calls cost little
PIECE = 131072

Activation = Callable[[torch.Tensor], torch.Tensor]


def activation_function(name: str) -> Activation:
    """The activation called `name`; raises ValueError for an unknown one."""
    if name in TANH_GELUS:
        return tanh_gelu
    # here, because the published model is trained without what takes seconds to import
    from transformers.activations import ACT2FN

    if name not in ACT2FN:
        raise ValueError(f"hidden_act {name!r} is unknown; 'gelu_fused' is the published one")
    return ACT2FN[name]


def tanh_gelu(x: torch.Tensor) -> torch.Tensor:
    """GELU by the tanh approximation, of any shape."""
    if _has_fast_kernel(x):
        return nn.functional.gelu(x, approximate="tanh")
    return TanhGelu.apply(x)


def gate(both: torch.Tensor, activation: Activation) -> torch.Tensor:
    """act(first) * second of [first, second] side by side: [..., 2 I] -> [..., I]."""
    if activation is tanh_gelu:
        return GeluGate.apply(both)
    first, second = both.chunk(2, dim=-1)
    return activation(first) * second


class TanhGelu(torch.autograd.Function):
    """GELU by pieces on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        result = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        for (piece, out), (sigmoid, square) in _pieces(2, x, result):
            torch.mul(_sigmoid(piece, square, sigmoid), piece, out=out)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        result = torch.empty(x.shape, dtype=gradient.dtype, device=x.device)
        for (piece, slope, out), scratch in _pieces(3, x, gradient, result):
            torch.mul(_value_and_slope(piece, *scratch)[1], slope, out=out)
        return result


class GeluGate(torch.autograd.Function):
    """The gate with tanh GELU; act(first) is computed again for the gradient."""

    @staticmethod
    def forward(ctx: Any, both: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(both)
        first, second = both.chunk(2, dim=-1)
        if _has_fast_kernel(both):
            return nn.functional.gelu(first, approximate="tanh").mul_(second)
        result = torch.empty(first.shape, dtype=both.dtype, device=both.device)
        for (x, factor, out), (sigmoid, square) in _pieces(2, first, second, result):
            torch.mul(_sigmoid(x, square, sigmoid).mul_(x), factor, out=out)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (both,) = ctx.saved_tensors
        first, second = both.chunk(2, dim=-1)
        result = torch.empty(both.shape, dtype=both.dtype, device=both.device)
        for_first, for_second = result.chunk(2, dim=-1)
        if _has_fast_kernel(both):
            torch.mul(nn.functional.gelu(first, approximate="tanh"), gradient, out=for_second)
            for_first.copy_(torch.ops.aten.gelu_backward(gradient * second, first, approximate="tanh"))
            return result
        tensors = (first, second, gradient, for_first, for_second)
        for (x, factor, slope, out, factor_out), scratch in _pieces(3, *tensors):
            value, derivative = _value_and_slope(x, *scratch)
            torch.mul(value, slope, out=factor_out)
            torch.mul(derivative.mul_(factor), slope, out=out)
        return result


def _has_fast_kernel(x: torch.Tensor) -> bool:
    """Whether torch does better by itself: on an accelerator, and where the compiler fuses."""
    return x.device.type != "cpu" or torch.compiler.is_compiling()


def _pieces(
    buffers: int, *tensors: torch.Tensor
) -> Iterator[tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, ...]]]:
    """The same rows of all tensors [..., I], a cache's worth for every thread at a time, and scratch space.

    The scratch space is fp32 at least: half precision would lose the small values of the tail.
    """
    width = tensors[0].shape[-1]
    rows = max(1, PIECE * torch.get_num_threads() // max(1, width))
    wide = torch.promote_types(tensors[0].dtype, torch.float32)
    scratch = torch.empty(buffers, min(rows, tensors[0].numel() // max(1, width)), width, dtype=wide)
    for pieces in zip(*(_as_rows(tensor).split(rows) for tensor in tensors), strict=True):
        yield pieces, tuple(buffer[: len(pieces[0])] for buffer in scratch)


def _as_rows(tensor: torch.Tensor) -> torch.Tensor:
    """[..., I] -> [rows, I]; half of a wider tensor stays a view of it."""
    return tensor.flatten(0, -2) if tensor.dim() > 1 else tensor[None]


def _sigmoid(x: torch.Tensor, square: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """sigmoid(2 u), which is gelu(x) / x; `square` becomes x^2."""
    out.copy_(x)
    torch.mul(out, out, out=square)
    return out.addcmul_(square, out, value=CUBIC).mul_(STEEPNESS).sigmoid_()


def _value_and_slope(
    x: torch.Tensor, sigmoid: torch.Tensor, square: torch.Tensor, value: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """gelu(x), and its derivative s + x s (1 - s) (2 u)' for s = sigmoid(2 u)."""
    torch.mul(_sigmoid(x, square, sigmoid), x, out=value)
    slope = square.mul_(3 * CUBIC * STEEPNESS).add_(STEEPNESS).mul_(value)
    return value, slope.addcmul_(slope, sigmoid, value=-1).add_(sigmoid)
