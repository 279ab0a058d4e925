"""LeanALBERT as peers train it: encoder and pre-training heads as plain torch modules, without transformers.

Its state dict has the names and tensors of `LeanAlbertForPreTraining`, which shares this code through the mixins.
The masked-LM head runs only where there is a label while training (it is the largest single cost of a step at every
position); in evaluation it gives the scores of every position, unless told otherwise by `masked_positions_only`.
A batch without any label has loss 0 and still a gradient.

Shapes: B batch, L length, D width, V vocabulary, M labelled positions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .activation_lean_albert import activation_function
from .layers_lean_albert import (
    AdaptedLinear,
    Encoded,
    LeanAlbertEmbeddings,
    LeanAlbertTransformer,
    SharedMatrix,
)
from .losses_lean_albert import IGNORED_LABEL, mean_cross_entropy
from .packing_lean_albert import first_rows, positions_of
from .shape_lean_albert import LeanAlbertShape

MLM_LAYER_NORM_EPS = 1e-5  # the published head uses torch's default here and not the configuration's eps


class DefaultInitLinear(nn.Linear):
    """A linear layer that keeps torch's own initialisation, as two heads of the published model do."""


@torch.no_grad()
def init_weights(module: nn.Module, std: float, init: Any = nn.init) -> None:
    """Normal(0, std) for a module's own matrices, 0 for its biases (SmallInit, with the shape's std by default).

    :param init: functions as in `torch.nn.init`
    """
    if isinstance(module, DefaultInitLinear):
        bound = 1 / math.sqrt(module.in_features)
        init.uniform_(module.weight, -bound, bound)
        init.uniform_(module.bias, -bound, bound)
    elif isinstance(module, nn.Linear):
        init.normal_(module.weight, mean=0.0, std=std)
        if module.bias is not None:
            init.zeros_(module.bias)
    elif isinstance(module, nn.Embedding):
        _init_embedding(module, std, init)
    elif isinstance(module, nn.LayerNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, SharedMatrix):
        for parameter in module.parameters(recurse=False):
            init.normal_(parameter, mean=0.0, std=std)
    elif isinstance(module, AdaptedLinear):
        _init_adapted_linear(module, std, init)


def _init_embedding(module: nn.Embedding, std: float, init: Any) -> None:
    init.normal_(module.weight, mean=0.0, std=std)
    loaded = getattr(module.weight, "_is_hf_initialized", False)
    if module.padding_idx is not None and not loaded:
        init.zeros_(module.weight[module.padding_idx])


def _init_adapted_linear(module: AdaptedLinear, std: float, init: Any) -> None:
    if module.bias is not None:
        init.zeros_(module.bias)
    if module.adapter_first is not None and module.adapter_second is not None:
        init.normal_(module.adapter_first, mean=0.0, std=std)
        init.zeros_(module.adapter_second)  # LoRA: an adapter starts as no change


class EncoderMixin:
    """Embeddings, transformer and pooler of a module, and what they compute."""

    embeddings: LeanAlbertEmbeddings
    transformer: LeanAlbertTransformer
    pooler: nn.Linear | None

    def add_layers(self, shape: LeanAlbertShape, *, pooling: bool) -> None:
        """Build them; call once, when the module itself is constructed."""
        self.embeddings = LeanAlbertEmbeddings(shape)
        self.transformer = LeanAlbertTransformer(shape)
        self.pooler = nn.Linear(shape.hidden_size, shape.hidden_size) if pooling else None

    def encode(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
        *,
        explicit: bool = False,
        output_hidden_states: bool = False,
        last_rows: torch.Tensor | None = None,
    ) -> Encoded:
        """See `LeanAlbertModel.forward`, and `LeanAlbertTransformer.forward` for the keywords."""
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is None or (input_ids is not None and inputs_embeds is not None):
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        if position_ids is None:
            position_ids = _default_positions(given, sequence_ids)
        encoded: Encoded = self.transformer(
            self.embeddings(input_ids, token_type_ids, position_ids, inputs_embeds),
            attention_mask,
            position_ids,
            sequence_ids,
            explicit,
            output_hidden_states,
            last_rows,
        )
        if self.pooler is not None and last_rows is None:
            encoded.pooler_output = self.pool(encoded.last_hidden_state, sequence_ids)
        return encoded

    def pool(self, last_BLD: torch.Tensor, sequence_ids_BL: torch.Tensor | None) -> torch.Tensor:
        """The pooled output [B, D], or [sequences, D] if packed."""
        return self.pool_rows(
            last_BLD.flatten(0, 1)[first_rows(last_BLD.shape[:2], sequence_ids_BL, last_BLD.device)]
        )

    def pool_rows(self, first: torch.Tensor) -> torch.Tensor:
        """The pooled output of first tokens [sequences, D]."""
        if self.pooler is None:
            raise ValueError("this model was made without a pooling layer")
        return self.pooler(first).tanh()


def _default_positions(given: torch.Tensor, sequence_ids_BL: torch.Tensor | None) -> torch.Tensor:
    if sequence_ids_BL is not None:
        return positions_of(sequence_ids_BL)
    return torch.arange(given.shape[1], device=given.device)[None]


class LeanAlbertMLMHead(nn.Module):
    """Scores over the vocabulary: [..., D] -> [..., V], the decoder being the word embeddings."""

    def __init__(self, shape: LeanAlbertShape) -> None:
        super().__init__()
        self.dense = DefaultInitLinear(shape.hidden_size, shape.embedding_size)
        self.activation = activation_function(shape.hidden_act)
        self.layer_norm = nn.LayerNorm(shape.embedding_size, eps=MLM_LAYER_NORM_EPS)
        self.decoder = nn.Linear(shape.embedding_size, shape.vocab_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.layer_norm(self.activation(self.dense(hidden))))


class LeanAlbertSOPHead(nn.Module):
    """Sentence order: pooled [B, D] -> [B, 2]."""

    def __init__(self, shape: LeanAlbertShape) -> None:
        super().__init__()
        self.dropout = nn.Dropout(shape.classifier_dropout_prob)
        self.classifier = DefaultInitLinear(shape.hidden_size, 2)

    def forward(self, pooled_BD: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(pooled_BD))


class MaskedLMMixin:
    """What all models with a masked-LM head share: the positions at which it is computed, and its loss."""

    training: bool
    predictions: LeanAlbertMLMHead

    def chosen_rows(
        self, labels_BL: torch.Tensor | None, masked_positions_only: bool | None
    ) -> torch.Tensor | None:
        """Flat positions of the labels, or None where the scores of every position are wanted."""
        if masked_positions_only is None:
            masked_positions_only = self.training and labels_BL is not None
        if not masked_positions_only:
            return None
        if labels_BL is None:
            raise ValueError("masked_positions_only needs labels: they say which positions are masked")
        return (labels_BL != IGNORED_LABEL).flatten().nonzero().flatten()

    def masked_lm_loss(
        self, logits: torch.Tensor, labels_BL: torch.Tensor | None, chosen: torch.Tensor | None
    ) -> torch.Tensor | None:
        """Mean cross-entropy of scores at all positions, or at the chosen ones."""
        if labels_BL is None:
            return None
        return mean_cross_entropy(logits, labels_BL if chosen is None else labels_BL.flatten()[chosen])


@dataclass
class PreTrainingScores:
    """Loss and scores of both objectives; see `LeanAlbertForPreTrainingOutput`."""

    loss: torch.Tensor | None
    prediction_logits: torch.Tensor
    sop_logits: torch.Tensor | None


class PreTrainingMixin(MaskedLMMixin):
    """Both heads of a pre-training model."""

    sop_classifier: LeanAlbertSOPHead

    def score(
        self,
        hidden: torch.Tensor,
        pooled: torch.Tensor | None,
        chosen: torch.Tensor | None,
        labels: torch.Tensor | None,
        sentence_order_label: torch.Tensor | None,
    ) -> PreTrainingScores:
        """Of hidden states [B, L, D], or [M, D] at the chosen rows, and of the pooled output [B, D] if wanted."""
        logits = self.predictions(hidden)
        loss = self.masked_lm_loss(logits, labels, chosen)
        sop_logits = None if pooled is None else self.sop_classifier(pooled)
        if sentence_order_label is not None and sop_logits is not None:
            sop_loss = mean_cross_entropy(sop_logits, sentence_order_label)
            loss = sop_loss if loss is None else loss + sop_loss
        return PreTrainingScores(loss, logits, sop_logits)


class LeanAlbertEncoder(EncoderMixin, nn.Module):
    """The encoder with its pooling layer."""

    def __init__(self, shape: LeanAlbertShape) -> None:
        super().__init__()
        self.add_layers(shape, pooling=True)

    def forward(self, *inputs: torch.Tensor | None, **options: Any) -> Encoded:
        return self.encode(*inputs, **options)


class LeanAlbertNetwork(PreTrainingMixin, nn.Module):
    """LeanALBERT with a masked-LM and a sentence-order head, initialised by torch's random state.

    Example:
        >>> network = LeanAlbertNetwork(shape).train()
        >>> network(input_ids, labels=labels, sentence_order_label=order).loss.backward()
    """

    def __init__(self, shape: LeanAlbertShape) -> None:
        super().__init__()
        self.config = shape
        self.albert = LeanAlbertEncoder(shape)
        self.predictions = LeanAlbertMLMHead(shape)
        self.sop_classifier = LeanAlbertSOPHead(shape)
        self.apply(lambda module: init_weights(module, shape.initializer_range))
        if shape.tie_word_embeddings:
            self.predictions.decoder.weight = self.albert.embeddings.word_embeddings.weight

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return next(self.parameters()).device

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        sentence_order_label: torch.Tensor | None = None,
        sequence_ids: torch.Tensor | None = None,
        masked_positions_only: bool | None = None,
    ) -> PreTrainingScores:
        """Scores and loss; `labels` [B, L] are -100 where nothing is asked, `sentence_order_label` is [B]."""
        chosen = self.chosen_rows(labels, masked_positions_only)
        inputs = (input_ids, attention_mask, token_type_ids, None, None, sequence_ids)
        if chosen is None:
            encoded = self.albert(*inputs)
            hidden, pooled = encoded.last_hidden_state, encoded.pooler_output
        else:
            starts = first_rows(input_ids.shape, sequence_ids, input_ids.device)
            rows = self.albert(*inputs, last_rows=torch.cat((starts, chosen))).last_hidden_state
            hidden, pooled = rows[len(starts) :], self.albert.pool_rows(rows[: len(starts)])
        return self.score(hidden, pooled, chosen, labels, sentence_order_label)
