"""LeanALBERT for downstream tasks: sequences, tokens, answers, choices.

Each model takes the encoder's arguments as keywords beside its own labels. Labels of -100 are ignored.
Sequence classification follows `config.problem_type`: regression, single_label_classification or
multi_label_classification, and chooses by the labels where it is not set.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.modeling_outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils import ModelOutput

from .configuration_lean_albert import LeanAlbertConfig
from .encoder_lean_albert import LeanAlbertModel, LeanAlbertPreTrainedModel, wants_dict
from .losses_lean_albert import answer_span_loss, classification_loss, mean_cross_entropy


class _WithTaskHead(LeanAlbertPreTrainedModel):
    """Encoder, dropout, and one linear layer that the subclasses name and apply."""

    pooled = True
    _keys_to_ignore_on_load_unexpected = [r"^predictions\.", r"^sop_classifier\."]  # noqa: RUF012

    def __init__(self, config: LeanAlbertConfig) -> None:
        super().__init__(config)
        self.num_labels: int = config.num_labels or 2
        self.albert = LeanAlbertModel(config, add_pooling_layer=self.pooled)
        self.dropout = nn.Dropout(config.classifier_dropout_prob)

    def _answer(self, output: ModelOutput, return_dict: bool | None) -> Any:
        return output if wants_dict(self.config, return_dict) else output.to_tuple()


class LeanAlbertForSequenceClassification(_WithTaskHead):
    """One score per label and sequence: `labels` [B] (or [B, labels] for several at once)."""

    def __init__(self, config: LeanAlbertConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput | tuple:
        encoded = self.albert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.classifier(self.dropout(encoded.pooler_output))
        loss = None if labels is None else classification_loss(logits, labels, self.config.problem_type)
        output = SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=encoded.hidden_states, attentions=encoded.attentions
        )
        return self._answer(output, return_dict)


class LeanAlbertForTokenClassification(_WithTaskHead):
    """One score per label and token: `labels` [B, L]."""

    pooled = False
    _keys_to_ignore_on_load_unexpected = [r"^predictions\.", r"^sop_classifier\.", r"^albert\.pooler\."]  # noqa: RUF012

    def __init__(self, config: LeanAlbertConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, self.num_labels)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput | tuple:
        encoded = self.albert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        logits = self.classifier(self.dropout(encoded.last_hidden_state))
        output = TokenClassifierOutput(
            loss=None if labels is None else mean_cross_entropy(logits, labels),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self._answer(output, return_dict)


class LeanAlbertForQuestionAnswering(_WithTaskHead):
    """Scores [B, L] for the first and the last token of the answer."""

    pooled = False
    _keys_to_ignore_on_load_unexpected = [r"^predictions\.", r"^sop_classifier\.", r"^albert\.pooler\."]  # noqa: RUF012

    def __init__(self, config: LeanAlbertConfig) -> None:
        super().__init__(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        start_positions: torch.Tensor | None = None,
        end_positions: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> QuestionAnsweringModelOutput | tuple:
        encoded = self.albert(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, return_dict=True, **kwargs
        )
        start_logits, end_logits = self.qa_outputs(self.dropout(encoded.last_hidden_state)).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = answer_span_loss(start_logits, end_logits, start_positions, end_positions)
        output = QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits,
            end_logits=end_logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self._answer(output, return_dict)


class LeanAlbertForMultipleChoice(_WithTaskHead):
    """One score per choice: inputs are [B, choices, L], `labels` [B] say which choice is right."""

    def __init__(self, config: LeanAlbertConfig) -> None:
        super().__init__(config)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> MultipleChoiceModelOutput | tuple:
        given = input_ids if inputs_embeds is None else inputs_embeds
        if given is None:
            raise ValueError("You must specify exactly one of input_ids or inputs_embeds")
        tensors = (input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds)
        flat = [None if tensor is None else tensor.flatten(0, 1) for tensor in tensors]
        encoded = self.albert(*flat, return_dict=True, **kwargs)
        logits = self.classifier(self.dropout(encoded.pooler_output)).view(-1, given.shape[1])
        output = MultipleChoiceModelOutput(
            loss=None if labels is None else mean_cross_entropy(logits, labels),
            logits=logits,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return self._answer(output, return_dict)
