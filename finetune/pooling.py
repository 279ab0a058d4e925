"""Means of token vectors over spans."""

from __future__ import annotations

import torch


def mean_of_spans(hidden_BLD: torch.Tensor, spans_BS2: torch.Tensor) -> torch.Tensor:
    """Mean vector [B, S, D] of each half-open token range; an empty range gives zeros."""
    position_L = torch.arange(hidden_BLD.shape[1], device=hidden_BLD.device)
    start_BS1, end_BS1 = spans_BS2[..., :1], spans_BS2[..., 1:]
    inside_BSL = ((position_L >= start_BS1) & (position_L < end_BS1)).to(hidden_BLD.dtype)
    return inside_BSL @ hidden_BLD / inside_BSL.sum(-1, keepdim=True).clamp(min=1)
