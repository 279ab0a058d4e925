"""LeanALBERT for pre-training: masked language modelling and sentence order.

What they compute, and where the masked-LM head runs, is said in `network_lean_albert.py`, whose modules these are
with what transformers adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import MaskedLMOutput
from transformers.utils import ModelOutput

# transformers before 5 copies only what this file imports itself: it must name every other file
from .activation_lean_albert import activation_function  # noqa: F401
from .attention_lean_albert import AttentionContext  # noqa: F401
from .configuration_lean_albert import LeanAlbertConfig
from .encoder_lean_albert import LeanAlbertModel, LeanAlbertPreTrainedModel, wants_dict
from .heads_lean_albert import (
    LeanAlbertForMultipleChoice,
    LeanAlbertForQuestionAnswering,
    LeanAlbertForSequenceClassification,
    LeanAlbertForTokenClassification,
)
from .layers_lean_albert import LeanAlbertTransformer
from .losses_lean_albert import mean_cross_entropy  # noqa: F401
from .network_lean_albert import LeanAlbertMLMHead, LeanAlbertSOPHead, MaskedLMMixin, PreTrainingMixin
from .packing_lean_albert import first_rows
from .shape_lean_albert import LeanAlbertShape  # noqa: F401

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


class _WithMaskedLM(MaskedLMMixin, LeanAlbertPreTrainedModel):
    """What pre-training and masked LM share for transformers."""

    _tied_weights_keys = TIED_WEIGHTS
    albert: LeanAlbertModel

    def get_output_embeddings(self) -> nn.Linear:
        return self.predictions.decoder

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.predictions.decoder = value  # type: ignore[assignment]

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


class LeanAlbertForPreTraining(PreTrainingMixin, _WithMaskedLM):
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
        chosen = self.chosen_rows(labels, masked_positions_only)
        hidden, pooled, encoded = self._encode(chosen, *inputs, pooled=True, **kwargs)
        scores = self.score(hidden, pooled, chosen, labels, sentence_order_label)
        output = LeanAlbertForPreTrainingOutput(
            loss=scores.loss,
            prediction_logits=scores.prediction_logits,
            sop_logits=scores.sop_logits,
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
        chosen = self.chosen_rows(labels, masked_positions_only)
        hidden, _, encoded = self._encode(chosen, *inputs, pooled=False, **kwargs)
        logits = self.predictions(hidden)
        loss = self.masked_lm_loss(logits, labels, chosen)
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return output if wants_dict(self.config, return_dict) else output.to_tuple()
