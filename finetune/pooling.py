"""Token vectors of an encoder, and their means over spans."""

from __future__ import annotations

import torch
from torch import nn


def hidden_states(
    encoder: nn.Module,
    input_ids: torch.Tensor,
    attention_mask: torch.Tensor,
    token_type_ids: torch.Tensor | None,
) -> torch.Tensor:
    """Last hidden states [B, L, D]; token types only for encoders that take them."""
    types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    return encoder(input_ids=input_ids, attention_mask=attention_mask, **types).last_hidden_state


def mean_of_spans(hidden_BLD: torch.Tensor, spans_BS2: torch.Tensor) -> torch.Tensor:
    """Mean vector [B, S, D] of each half-open token range; an empty range gives zeros."""
    position_L = torch.arange(hidden_BLD.shape[1], device=hidden_BLD.device)
    start_BS1, end_BS1 = spans_BS2[..., :1], spans_BS2[..., 1:]
    inside_BSL = ((position_L >= start_BS1) & (position_L < end_BS1)).to(hidden_BLD.dtype)
    return inside_BSL @ hidden_BLD / inside_BSL.sum(-1, keepdim=True).clamp(min=1)
