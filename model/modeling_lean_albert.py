"""LeanALBERT for pre-training: masked language modelling and sentence order.

The masked-LM head runs only where there is a label while training (it is the largest single cost of a
step at every position); in evaluation it gives the scores of every position, unless told otherwise by
`masked_positions_only`. A batch without any label has loss 0 and still a gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import MaskedLMOutput
from transformers.utils import ModelOutput

# transformers before 5 copies only what this file imports itself: it must name every other file
from .activation_lean_albert import activation_function
from .attention_lean_albert import AttentionContext  # noqa: F401
from .configuration_lean_albert import LeanAlbertConfig
from .encoder_lean_albert import DefaultInitLinear, LeanAlbertModel, LeanAlbertPreTrainedModel, wants_dict
from .heads_lean_albert import (
    LeanAlbertForMultipleChoice,
    LeanAlbertForQuestionAnswering,
    LeanAlbertForSequenceClassification,
    LeanAlbertForTokenClassification,
)
from .layers_lean_albert import LeanAlbertTransformer
from .losses_lean_albert import IGNORED_LABEL, mean_cross_entropy
from .packing_lean_albert import first_rows

# config.json names every class in this module, so that one file leads to all of them
__all__ = [
    "LeanAlbertForMaskedLM",
    "LeanAlbertForMultipleChoice",
    "LeanAlbertForPreTraining",
    "LeanAlbertForPreTrainingOutput",
    "LeanAlbertForQuestionAnswering",
    "LeanAlbertForSequenceClassification",
    "LeanAlbertForTokenClassification",
    "LeanAlbertModel",
    "LeanAlbertTransformer",
]

MLM_LAYER_NORM_EPS = 1e-5  # the published head uses torch's default here and not the configuration's eps
TIED_WEIGHTS = {"predictions.decoder.weight": "albert.embeddings.word_embeddings.weight"}


@dataclass
class LeanAlbertForPreTrainingOutput(ModelOutput):
    """Losses and scores of both objectives.

    loss: sum of the mean masked-LM and the mean sentence-order cross-entropy, of what has labels.
    prediction_logits: [B, L, V], or [M, V] for the M labelled positions in reading order.
    sop_logits: [B, 2] ([sequences, 2] if packed); class 0 is the original order, 1 the swapped one.
    """

    loss: torch.Tensor | None = None
    prediction_logits: torch.Tensor | None = None
    sop_logits: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None
    attentions: tuple[torch.Tensor, ...] | None = None


class LeanAlbertMLMHead(nn.Module):
    """Scores over the vocabulary: [..., D] -> [..., V], the decoder being the word embeddings."""

    def __init__(self, config: LeanAlbertConfig) -> None:
        super().__init__()
        self.dense = DefaultInitLinear(config.hidden_size, config.embedding_size)
        self.activation = activation_function(config.hidden_act)
        self.layer_norm = nn.LayerNorm(config.embedding_size, eps=MLM_LAYER_NORM_EPS)
        self.decoder = nn.Linear(config.embedding_size, config.vocab_size)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.layer_norm(self.activation(self.dense(hidden))))


class LeanAlbertSOPHead(nn.Module):
    """Sentence order: pooled [B, D] -> [B, 2]."""

    def __init__(self, config: LeanAlbertConfig) -> None:
        super().__init__()
        self.dropout = nn.Dropout(config.classifier_dropout_prob)
        self.classifier = DefaultInitLinear(config.hidden_size, 2)

    def forward(self, pooled_BD: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.dropout(pooled_BD))


class _WithMaskedLM(LeanAlbertPreTrainedModel):
    """What pre-training and masked LM share: the head, and the positions at which it is computed."""

    _tied_weights_keys = TIED_WEIGHTS
    albert: LeanAlbertModel
    predictions: LeanAlbertMLMHead

    def get_output_embeddings(self) -> nn.Linear:
        return self.predictions.decoder

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.predictions.decoder = value  # type: ignore[assignment]

    def _chosen_rows(
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

    def _encode(
        self, chosen: torch.Tensor | None, *inputs: torch.Tensor | None, pooled: bool, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, Any]:
        """Hidden states (everywhere, or [M, D] at the chosen positions), pooled output, and the rest."""
        kwargs["return_dict"] = True
        if chosen is None:
            encoded = self.albert(*inputs, **kwargs)
            return encoded.last_hidden_state, encoded.pooler_output, encoded
        given = next(tensor for tensor in (inputs[0], inputs[-1]) if tensor is not None)
        starts = (
            first_rows(given.shape[:2], kwargs.get("sequence_ids"), given.device) if pooled else chosen[:0]
        )
        if kwargs.get("output_hidden_states") or self.config.output_hidden_states:
            encoded = self.albert(*inputs, **kwargs)
            hidden = encoded.last_hidden_state.flatten(0, 1)[torch.cat((starts, chosen))]
        else:
            encoded = self.albert(*inputs, **kwargs, last_rows=torch.cat((starts, chosen)))
            hidden = encoded.last_hidden_state
        first, rest = hidden[: len(starts)], hidden[len(starts) :]
        return rest, self.albert.pool_rows(first) if pooled else None, encoded

    def _masked_lm_loss(
        self, logits: torch.Tensor, labels_BL: torch.Tensor | None, chosen: torch.Tensor | None
    ) -> torch.Tensor | None:
        if labels_BL is None:
            return None
        return mean_cross_entropy(logits, labels_BL if chosen is None else labels_BL.flatten()[chosen])


class LeanAlbertForPreTraining(_WithMaskedLM):
    """LeanALBERT with a masked-LM and a sentence-order head.

    Example:
        >>> model = LeanAlbertForPreTraining(config).train()
        >>> model(input_ids, labels=labels, sentence_order_label=order).loss.backward()
    """

    def __init__(self, config: LeanAlbertConfig) -> None:
        super().__init__(config)
        self.albert = LeanAlbertModel(config)
        self.predictions = LeanAlbertMLMHead(config)
        self.sop_classifier = LeanAlbertSOPHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        sentence_order_label: torch.Tensor | None = None,
        masked_positions_only: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> LeanAlbertForPreTrainingOutput | tuple:
        """Scores and loss; `labels` [B, L] are -100 where nothing is asked, `sentence_order_label` is [B]."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        chosen = self._chosen_rows(labels, masked_positions_only)
        hidden, pooled, encoded = self._encode(chosen, *inputs, pooled=True, **kwargs)
        logits = self.predictions(hidden)
        loss = self._masked_lm_loss(logits, labels, chosen)
        sop_logits = self.sop_classifier(pooled)
        if sentence_order_label is not None:
            sop_loss = mean_cross_entropy(sop_logits, sentence_order_label)
            loss = sop_loss if loss is None else loss + sop_loss
        output = LeanAlbertForPreTrainingOutput(
            loss=loss,
            prediction_logits=logits,
            sop_logits=sop_logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output if wants_dict(self.config, return_dict) else output.to_tuple()


class LeanAlbertForMaskedLM(_WithMaskedLM):
    """LeanALBERT with a masked-LM head."""

    _keys_to_ignore_on_load_unexpected = [r"^albert\.pooler\.", r"^sop_classifier\."]  # noqa: RUF012

    def __init__(self, config: LeanAlbertConfig) -> None:
        super().__init__(config)
        self.albert = LeanAlbertModel(config, add_pooling_layer=False)
        self.predictions = LeanAlbertMLMHead(config)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        masked_positions_only: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> MaskedLMOutput | tuple:
        """Scores [B, L, V] ([M, V] at the labelled positions) and loss; `labels` [B, L], -100 elsewhere."""
        inputs = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        chosen = self._chosen_rows(labels, masked_positions_only)
        hidden, _, encoded = self._encode(chosen, *inputs, pooled=False, **kwargs)
        logits = self.predictions(hidden)
        loss = self._masked_lm_loss(logits, labels, chosen)
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return output if wants_dict(self.config, return_dict) else output.to_tuple()
