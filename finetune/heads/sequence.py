"""One label for a text or a pair of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from finetune.encoder import Encoder
from finetune.head import (
    Collate,
    Features,
    Head,
    Item,
    Rows,
    class_labels,
    count_truncated,
    encode_pairs,
    model_rows,
    padded,
)


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair, with a class number (None if hidden). `idx` is the file's own id."""

    idx: Any
    first: str
    second: str | None
    label: int | None
    group: str = ""


class SequenceHead(Head[TextExample]):
    """The Auto class for sequence classification. Scores are logits [labels] an example."""

    def build(self, encoder: Encoder, labels: Sequence[str]) -> nn.Module:
        return encoder.with_head(AutoModelForSequenceClassification, labels)

    def features(
        self, examples: Sequence[TextExample], tokenizer: PreTrainedTokenizerFast, max_length: int
    ) -> Features:
        pairs = [(example.first, example.second) for example in examples]
        encodings = encode_pairs(pairs, tokenizer, max_length)
        rows = model_rows(encodings, tokenizer)
        for row, example in zip(rows, examples, strict=True):
            if example.label is not None:
                row["labels"] = example.label
        return Features(rows, list(range(len(rows))), count_truncated(encodings))

    def collate(self, tokenizer: PreTrainedTokenizerFast) -> Collate:
        def collate(rows: Rows) -> dict[str, torch.Tensor]:
            return padded(rows, tokenizer) | class_labels(rows)

        return collate

    def scores(self, outputs: Any, features: Features, examples: Sequence[TextExample]) -> list[np.ndarray]:
        return features.in_order_of_examples(outputs)

    def items(self, example: TextExample) -> list[Item]:
        return [Item(example.first, example.second or "", example.label)]

    def scores_of_items(self, example: TextExample, probabilities_NK: np.ndarray) -> np.ndarray:
        return probabilities_NK[0]
