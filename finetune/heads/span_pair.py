"""Whether two marked spans of a text, or of a pair of texts, belong together.

The head sees what the encoder made of the two spans themselves (mean of their tokens), their product and
the distance between them, and the first token: more than a classifier of the whole text, which would have
to find out by itself which words are meant.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.encoder import Encoder
from finetune.head import (
    Collate,
    Features,
    Head,
    Item,
    Rows,
    class_labels,
    encode_pairs,
    model_rows,
    padded,
)
from finetune.pooling import hidden_states, mean_of_spans
from finetune.token_spans import TokenRange, tokens_of_span

FIRST_TOKEN: TokenRange = (0, 1)


@dataclass(frozen=True)
class SpanPairExample:
    """Two spans (text number, start, end), with a class number (None if hidden)."""

    idx: Any
    first: str
    second: str | None
    spans: tuple[tuple[int, int, int], tuple[int, int, int]]
    label: int | None

    def words(self) -> tuple[str, str]:
        """The two spans' own text."""
        texts = (self.first, self.second or "")
        one, two = (texts[text][start:end] for text, start, end in self.spans)
        return one, two


class SpanPairClassifier(nn.Module):
    """Encoder, and a linear layer over [first token, span 1, span 2, product, distance]."""

    accepts_loss_kwargs = False

    def __init__(self, encoder: nn.Module, labels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        width: int = encoder.config.hidden_size  # type: ignore[union-attr, assignment]
        self.dropout = nn.Dropout(0.1)
        self.classifier = nn.Linear(5 * width, labels)

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        spans: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """`spans` [B, 2, 2]: half-open token ranges of both spans; logits [B, labels]."""
        hidden_BLD = hidden_states(self.encoder, input_ids, attention_mask, token_type_ids)
        one_BD, two_BD = mean_of_spans(hidden_BLD, spans).unbind(1)
        joined = (hidden_BLD[:, 0], one_BD, two_BD, one_BD * two_BD, (one_BD - two_BD).abs())
        logits = self.classifier(self.dropout(torch.cat(joined, dim=-1)))
        loss = None if labels is None else nn.functional.cross_entropy(logits.float(), labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class SpanPairHead(Head[SpanPairExample]):
    """Span pooling. Scores are logits [labels] an example."""

    def build(self, encoder: Encoder, labels: Sequence[str]) -> nn.Module:
        return SpanPairClassifier(encoder.bare(), len(labels))

    def features(
        self, examples: Sequence[SpanPairExample], tokenizer: PreTrainedTokenizerFast, max_length: int
    ) -> Features:
        pairs = [(example.first, example.second) for example in examples]
        encodings = encode_pairs(pairs, tokenizer, max_length)
        rows, notes = model_rows(encodings, tokenizer), Counter[str]()
        for row, example, encoding in zip(rows, examples, encodings.encodings, strict=True):
            found = [tokens_of_span(encoding, *span) for span in example.spans]
            if None in found:
                notes["spans cut off by the model's length"] += 1
            row["spans"] = [tokens or FIRST_TOKEN for tokens in found]
            if example.label is not None:
                row["labels"] = example.label
        return Features(rows, list(range(len(rows))), notes)

    def collate(self, tokenizer: PreTrainedTokenizerFast) -> Collate:
        def collate(rows: Rows) -> dict[str, torch.Tensor]:
            batch = padded(rows, tokenizer)
            batch["spans"] = torch.tensor([row["spans"] for row in rows])
            return batch | class_labels(rows)

        return collate

    def scores(
        self, outputs: Any, features: Features, examples: Sequence[SpanPairExample]
    ) -> list[np.ndarray]:
        return features.in_order_of_examples(outputs)

    def items(self, example: SpanPairExample) -> list[Item]:
        return [Item(f"{example.first} {example.second or ''}", " ".join(example.words()), example.label)]

    def scores_of_items(self, example: SpanPairExample, probabilities_NK: np.ndarray) -> np.ndarray:
        return probabilities_NK[0]
