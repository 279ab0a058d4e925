"""Layers of LeanALBERT: embeddings, shared matrices, the pre-norm pair, and the stack.

Shapes: B batch, L length, D width, E embedding size, H heads, K head size, I intermediate size.
The residual stream keeps the dtype of the embeddings' output (fp32 under autocast): sub-layers add to it
and never replace it. A big matrix exists once, in `SharedMatrices`; what differs between the pairs that
use it (norms, biases, adapters) stands in the pair.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .activation_lean_albert import activation_function, gate
from .attention_lean_albert import AttentionContext, SplitAndRotate, additive_mask, attend, rotary_table
from .packing_lean_albert import can_attend_by_run, kept_positions, runs_of
from .shape_lean_albert import LeanAlbertShape


class SharedMatrix(nn.Module):
    """One big matrix [out, in], optionally with a low-rank term of its own: W + second first."""

    def __init__(self, in_features: int, out_features: int, rank: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.lowrank_first = nn.Parameter(torch.empty(rank, in_features)) if rank else None
        self.lowrank_second = nn.Parameter(torch.empty(out_features, rank)) if rank else None

    def forward(self, x: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        y = nn.functional.linear(x, self.weight, bias)
        return _add_lowrank(y, x, self.lowrank_first, self.lowrank_second)


def _add_lowrank(
    y: torch.Tensor, x: torch.Tensor, first: torch.Tensor | None, second: torch.Tensor | None
) -> torch.Tensor:
    if first is None or second is None:
        return y
    return y + nn.functional.linear(nn.functional.linear(x, first), second)


class SharedMatrices(nn.Module):
    """The four big matrices of one pair."""

    def __init__(self, config: LeanAlbertShape) -> None:
        super().__init__()
        hidden, inner, rank = config.hidden_size, config.intermediate_size, config.lowrank_dim
        self.dense_qkv = SharedMatrix(hidden, 3 * hidden, rank)
        self.dense_out = SharedMatrix(hidden, hidden, rank)
        self.dense_i2h = SharedMatrix(hidden, (2 if config.hidden_act_gated else 1) * inner, rank)
        self.dense_h2o = SharedMatrix(inner, hidden, rank)


class AdaptedLinear(nn.Module):
    """A linear map over a matrix it does not own: its own bias and its own low-rank adapter."""

    def __init__(self, in_features: int, out_features: int, *, bias: bool, rank: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.adapter_first = nn.Parameter(torch.empty(rank, in_features)) if rank else None
        self.adapter_second = nn.Parameter(torch.empty(out_features, rank)) if rank else None

    def forward(self, x: torch.Tensor, matrix: SharedMatrix) -> torch.Tensor:
        return _add_lowrank(matrix(x, self.bias), x, self.adapter_first, self.adapter_second)


class LeanAlbertEmbeddings(nn.Module):
    """Token, type and (if absolute) position embeddings, normalised, projected: ids [B, L] -> [B, L, D]."""

    def __init__(self, config: LeanAlbertShape) -> None:
        super().__init__()
        size = config.embedding_size
        self.word_embeddings = nn.Embedding(config.vocab_size, size, padding_idx=config.pad_token_id)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.position_embeddings = None
        if config.position_embedding_type == "absolute":
            self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.layer_norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.embedding_hidden_mapping = None
        if size != config.hidden_size:
            self.embedding_hidden_mapping = nn.Linear(size, config.hidden_size)

    def forward(
        self,
        input_ids_BL: torch.Tensor | None,
        token_type_ids_BL: torch.Tensor | None,
        position_ids_BL: torch.Tensor,
        inputs_embeds_BLE: torch.Tensor | None,
    ) -> torch.Tensor:
        x = self.word_embeddings(input_ids_BL) if inputs_embeds_BLE is None else inputs_embeds_BLE
        if token_type_ids_BL is None:
            x = x + self.token_type_embeddings.weight[0]
        else:
            x = x + self.token_type_embeddings(token_type_ids_BL)
        if self.position_embeddings is not None:
            x = x + self.position_embeddings(position_ids_BL)
        x = self.dropout(self.layer_norm(x))
        return x if self.embedding_hidden_mapping is None else self.embedding_hidden_mapping(x)


class LeanAlbertAttention(nn.Module):
    """The attention half of a pair: x + dropout(S(out(attend(qkv(LN(x)))))).

    With `rows` only these of the B x L positions go on behind the mixing, as [rows, D].
    """

    def __init__(self, config: LeanAlbertShape) -> None:
        super().__init__()
        hidden, rank = config.hidden_size, config.adapter_dim
        self.num_heads, self.head_size = config.num_attention_heads, config.head_size
        self.attention_dropout = config.attention_probs_dropout_prob
        self.layer_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dense_qkv = AdaptedLinear(hidden, 3 * hidden, bias=config.attn_qkv_bias, rank=rank)
        self.dense_out = AdaptedLinear(hidden, hidden, bias=config.out_proj_bias, rank=rank)
        self.sandwich_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps) if config.sandwich_norm else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        x_BLD: torch.Tensor,
        matrices: SharedMatrices,
        context: AttentionContext,
        rows: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        batch, length, width = x_BLD.shape
        qkv = self.dense_qkv(self.layer_norm(x_BLD), matrices.dense_qkv)
        qkv = qkv.view(batch, length, 3, self.num_heads, self.head_size)
        if context.rotary is None:
            query, key, value = qkv.permute(2, 0, 3, 1, 4)
        else:
            query, key, value = SplitAndRotate.apply(qkv, *context.rotary)
        dropout = self.attention_dropout if self.training else 0.0
        mixed, probabilities = attend(query, key, value, context, dropout)
        mixed = mixed.transpose(1, 2).reshape(batch, length, width)
        if rows is not None:
            x_BLD, mixed = (
                x_BLD.flatten(0, 1).index_select(0, rows),
                mixed.flatten(0, 1).index_select(0, rows),
            )
        y = self.dense_out(mixed, matrices.dense_out)
        if self.sandwich_norm is not None:
            y = self.sandwich_norm(y)
        return x_BLD + self.dropout(y), probabilities


class LeanAlbertFeedForward(nn.Module):
    """The feed-forward half: x + dropout(S(h2o(act(first) * second))) with [first, second] = i2h(LN(x))."""

    def __init__(self, config: LeanAlbertShape) -> None:
        super().__init__()
        hidden, inner, rank = config.hidden_size, config.intermediate_size, config.adapter_dim
        self.gated = config.hidden_act_gated
        self.activation = activation_function(config.hidden_act)
        self.layer_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.dense_i2h = AdaptedLinear(hidden, (2 if self.gated else 1) * inner, bias=True, rank=rank)
        self.dense_h2o = AdaptedLinear(inner, hidden, bias=config.out_proj_bias, rank=rank)
        self.sandwich_norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps) if config.sandwich_norm else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x_BLD: torch.Tensor, matrices: SharedMatrices) -> torch.Tensor:
        y = self.dense_i2h(self.layer_norm(x_BLD), matrices.dense_i2h)
        y = gate(y, self.activation) if self.gated else self.activation(y)
        y = self.dense_h2o(y, matrices.dense_h2o)
        if self.sandwich_norm is not None:
            y = self.sandwich_norm(y)
        return x_BLD + self.dropout(y)


class LeanAlbertPair(nn.Module):
    """One attention and one feed-forward sub-layer."""

    def __init__(self, config: LeanAlbertShape) -> None:
        super().__init__()
        self.attention = LeanAlbertAttention(config)
        self.ffn = LeanAlbertFeedForward(config)

    def forward(
        self,
        x_BLD: torch.Tensor,
        matrices: SharedMatrices,
        context: AttentionContext,
        rows: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        x_BLD, probabilities = self.attention(x_BLD, matrices, context, rows)
        return self.ffn(x_BLD, matrices), probabilities


class LeanAlbertGroup(nn.Module):
    """The pairs that share one group of parameters."""

    def __init__(self, config: LeanAlbertShape) -> None:
        super().__init__()
        self.layers = nn.ModuleList([LeanAlbertPair(config) for _ in range(config.num_inner_groups)])


@dataclass
class Encoded:
    """What the stack makes of its input: [B, L, D] or [rows, D], and on request all layers' [B, L, D] and attention."""

    last_hidden_state: torch.Tensor
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None
    pooler_output: torch.Tensor | None = None


class LeanAlbertTransformer(nn.Module):
    """The stack: groups of pairs over the shared matrices, and one last norm."""

    def __init__(self, config: LeanAlbertShape) -> None:
        super().__init__()
        self.config = config
        self.matrices = nn.ModuleList([SharedMatrices(config) for _ in range(config.num_matrices)])
        self.layer_groups = nn.ModuleList([LeanAlbertGroup(config) for _ in range(config.num_hidden_groups)])
        self.post_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # where only some rows are wanted; compiled layers would be compiled again for another number of tokens
        self.keeps_padding = False
        # transformers and `training_step.checkpoint_gradients` set both
        self.gradient_checkpointing = False
        self._gradient_checkpointing_func: Callable[..., Any] | None = None

    def forward(
        self,
        x_BLD: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids_BL: torch.Tensor,
        sequence_ids_BL: torch.Tensor | None,
        explicit: bool = False,
        output_hidden_states: bool = False,
        last_rows: torch.Tensor | None = None,
    ) -> Encoded:
        """Run all layers; behind the last attention only the flat positions `last_rows`, if given.

        :param explicit: by products whose probabilities are seen, and returned, and not by torch's fused kernels
        """
        config = self.config
        if torch.is_autocast_enabled(x_BLD.device.type):
            x_BLD = x_BLD.float()  # the projection of the embeddings came out in half precision
        shape = x_BLD.shape
        runs = None
        if sequence_ids_BL is not None and attention_mask is None and not explicit and self._by_run(x_BLD):
            # nothing depends on the rows any more
            position_ids_BL = position_ids_BL.expand(shape[:2]).reshape(1, -1)
            x_BLD = x_BLD.reshape(1, -1, shape[-1])
            kept = None
            if last_rows is not None and not self.keeps_padding:
                kept, last_rows = kept_positions(sequence_ids_BL, last_rows)
                x_BLD, position_ids_BL = (t.index_select(1, kept) for t in (x_BLD, position_ids_BL))
            runs = runs_of(sequence_ids_BL, kept)
        mask = None if runs else additive_mask(attention_mask, sequence_ids_BL, x_BLD.dtype)
        rotary = None
        if config.position_embedding_type == "rotary":
            rotary = rotary_table(position_ids_BL, config.head_size, config.rotary_embedding_base)
        context = AttentionContext(mask, rotary, explicit, runs)
        states: list[torch.Tensor] = []
        attentions: list[torch.Tensor] = []
        for layer in range(config.num_hidden_layers):
            if output_hidden_states:
                states.append(x_BLD.view(shape))
            group = config.group_index(layer)
            for inner, pair in enumerate(self.layer_groups[group].layers):  # type: ignore[arg-type]
                matrices = self.matrices[config.matrix_index(group * config.num_inner_groups + inner)]
                is_last = layer == config.num_hidden_layers - 1 and inner == config.num_inner_groups - 1
                x_BLD, probabilities = self._run(
                    pair, x_BLD, matrices, context, last_rows if is_last else None
                )
                if probabilities is not None:
                    attentions.append(probabilities)
        last = self.post_layer_norm(x_BLD)
        last = last.view(shape) if last_rows is None else last
        return Encoded(
            last,
            hidden_states=(*states, last) if output_hidden_states else None,
            attentions=tuple(attentions) if explicit else None,
        )

    def _by_run(self, x_BLD: torch.Tensor) -> bool:
        """Whether attention over packed sequences can go run by run here."""
        kind, dtype = x_BLD.device.type, x_BLD.dtype
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        return can_attend_by_run(x_BLD.device, dtype, self.config.head_size, dropout)

    def _run(self, pair: LeanAlbertPair, *arguments: object) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.gradient_checkpointing and self.training and self._gradient_checkpointing_func is not None:
            return self._gradient_checkpointing_func(pair.__call__, *arguments)
        return pair(*arguments)
