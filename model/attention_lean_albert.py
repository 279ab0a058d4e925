"""Self-attention of LeanALBERT: rotary positions, masks, and the kernels that mix the values.

Shapes: B batch, L length, D width, H heads, K head size. Masks are additive and finite (-10000, as the
published code has it): a row of padding gives plain attention and not NaN, also in half precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .packing_lean_albert import Runs, attend_by_run, run_numbers

MASKED_SCORE = -10000.0


@dataclass(frozen=True, eq=False)
class AttentionContext:
    """What all layers of a forward pass share: who may attend to whom, where the tokens stand, which kernel.

    mask: additive [B, 1, 1 or L, L]; rotary: tables of `rotary_table`; explicit: the probabilities are wanted;
    runs: of packed sequences, which then stand in one row, and need no mask.
    """

    mask: torch.Tensor | None
    rotary: tuple[torch.Tensor, torch.Tensor] | None
    explicit: bool
    runs: Runs | None


def rotary_table(
    position_ids: torch.Tensor, head_size: int, base: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines [B or 1, 1, L, K/2] in fp32 for positions [B or 1, L] (Su et al. 2021, eq. 34)."""
    # linspace and not arange / head_size: bit-equal to the tables the published weights were trained with
    exponents = torch.linspace(0, -1 + 2 / head_size, head_size // 2, device=position_ids.device)
    angles = position_ids[:, None, :, None].float() * torch.pow(float(base), exponents)
    return angles.cos(), angles.sin()


class SplitAndRotate(torch.autograd.Function):
    """Projected thirds [B, L, 3, H, K] -> query, key, value [B, H, L, K], the first two rotated.

    The pairs are (x[j], x[j + K/2]) of every head. One pass writes the layout that attention wants; done by
    single operations, rotation and its gradient are a twentieth of a training step on a CPU.
    """

    @staticmethod
    def forward(
        ctx: Any, qkv: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        ctx.save_for_backward(cos, sin)
        query, key, value = (third.transpose(1, 2) for third in qkv.unbind(2))
        return _rotated(query, cos, sin), _rotated(key, cos, sin), value.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        query, key, value = gradients
        batch, heads, length, size = value.shape
        qkv = value.new_empty(batch, length, 3, heads, size)
        _rotated(query, cos, -sin, out=qkv[:, :, 0].transpose(1, 2))
        _rotated(key, cos, -sin, out=qkv[:, :, 1].transpose(1, 2))
        qkv[:, :, 2] = value.transpose(1, 2)
        return qkv, None, None


def _rotated(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, out: torch.Tensor | None = None
) -> torch.Tensor:
    """Rotate [B, H, L, K] by the tables [B or 1, 1, L, K/2], in the wider dtype of both."""
    if out is None:
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    exact = (
        out
        if out.dtype == torch.promote_types(x.dtype, cos.dtype)
        else torch.empty_like(out, dtype=cos.dtype)
    )
    (first, second), (low, high) = x.chunk(2, dim=-1), exact.chunk(2, dim=-1)
    torch.mul(first, cos, out=low)
    low.addcmul_(second, sin, value=-1)
    torch.mul(second, cos, out=high)
    high.addcmul_(first, sin)
    return out if exact is out else out.copy_(exact)


def additive_mask(
    attention_mask: torch.Tensor | None, sequence_ids_BL: torch.Tensor | None, dtype: torch.dtype
) -> torch.Tensor | None:
    """Additive scores [B, 1, 1 or L, L], or None where everything may be attended to.

    `attention_mask` [B, L] or [B, L, L] is 1 where attending is allowed. `sequence_ids` [B, L] lets tokens
    attend only within the run of tokens that carry their id.
    """
    allowed = None
    if attention_mask is not None:
        if attention_mask.is_floating_point():
            raise ValueError("attention_mask must be an integer or bool tensor, 1 where attending is allowed")
        allowed = attention_mask.bool()
        allowed = allowed[:, None, None, :] if allowed.dim() == 2 else allowed[:, None]
    if sequence_ids_BL is not None:
        runs_BL = run_numbers(sequence_ids_BL)
        same = (runs_BL[:, :, None] == runs_BL[:, None, :])[:, None]
        allowed = same if allowed is None else allowed & same
    if allowed is None or (not torch.compiler.is_compiling() and bool(allowed.all())):
        return None
    return torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill_(~allowed, MASKED_SCORE)


def explicit_attention(
    query_BHLK: torch.Tensor,
    key_BHLK: torch.Tensor,
    value_BHLK: torch.Tensor,
    mask: torch.Tensor | None,
    dropout: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention by two batched products; returns the mixed values and the probabilities [B, H, L, L]."""
    scores = torch.matmul(query_BHLK, (key_BHLK * query_BHLK.shape[-1] ** -0.5).transpose(-1, -2))
    if mask is not None:
        scores = scores + mask
    probabilities = scores.softmax(dim=-1).to(value_BHLK.dtype)
    dropped = nn.functional.dropout(probabilities, dropout) if dropout else probabilities
    return torch.matmul(dropped, value_BHLK), probabilities


def attend(
    query_BHLK: torch.Tensor,
    key_BHLK: torch.Tensor,
    value_BHLK: torch.Tensor,
    context: AttentionContext,
    dropout: float,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Mix the values; the probabilities are returned only by the explicit kernel."""
    if context.runs is not None:
        return attend_by_run(query_BHLK, key_BHLK, value_BHLK, context.runs, dropout), None
    mask = None if context.mask is None else context.mask.to(query_BHLK.dtype)
    if context.explicit:
        return explicit_attention(query_BHLK, key_BHLK, value_BHLK, mask, dropout)
    mixed = nn.functional.scaled_dot_product_attention(
        query_BHLK, key_BHLK, value_BHLK, attn_mask=mask, dropout_p=dropout
    )
    return mixed, None
