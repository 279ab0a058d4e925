"""Which of several continuations fits: every choice is scored beside its premise, the best one wins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForMultipleChoice, PreTrainedTokenizerFast

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
class ChoiceExample:
    """Pairs of texts of which exactly one is right: number `label`. All examples have equally many pairs."""

    idx: Any
    pairs: tuple[tuple[str, str], ...]
    label: int | None


class ChoiceHead(Head[ChoiceExample]):
    """The Auto class for multiple choice. Scores are logits [choices] an example."""

    rows_have_length = False

    def build(self, encoder: Encoder, labels: Sequence[str]) -> nn.Module:
        return encoder.with_head(AutoModelForMultipleChoice)

    def features(
        self, examples: Sequence[ChoiceExample], tokenizer: PreTrainedTokenizerFast, max_length: int
    ) -> Features:
        pairs = [pair for example in examples for pair in example.pairs]
        encodings = encode_pairs(pairs, tokenizer, max_length)
        flat = iter(model_rows(encodings, tokenizer))
        rows: Rows = []
        for example in examples:
            row: dict[str, Any] = {"choices": [next(flat) for _ in example.pairs]}
            if example.label is not None:
                row["labels"] = example.label
            rows.append(row)
        return Features(rows, list(range(len(rows))), count_truncated(encodings))

    def collate(self, tokenizer: PreTrainedTokenizerFast) -> Collate:
        def collate(rows: Rows) -> dict[str, torch.Tensor]:
            flat = padded([choice for row in rows for choice in row["choices"]], tokenizer)
            batch = {name: value.view(len(rows), -1, value.shape[-1]) for name, value in flat.items()}
            return batch | class_labels(rows)

        return collate

    def scores(self, outputs: Any, features: Features, examples: Sequence[ChoiceExample]) -> list[np.ndarray]:
        return features.in_order_of_examples(outputs)

    def items(self, example: ChoiceExample) -> list[Item]:
        def target(number: int) -> int | None:
            return None if example.label is None else int(number == example.label)

        return [Item(first, second, target(number)) for number, (first, second) in enumerate(example.pairs)]

    def scores_of_items(self, example: ChoiceExample, probabilities_NK: np.ndarray) -> np.ndarray:
        return probabilities_NK[:, -1]

    def majority_scores(self, example: ChoiceExample, counts: Counter[int], classes: int) -> np.ndarray:
        """Always the place that was right most often."""
        scores_C = np.zeros(len(example.pairs))
        scores_C[max(counts, key=lambda place: (counts[place], -place)) if counts else 0] = 1.0
        return scores_C

    def targets(self, example: ChoiceExample) -> list[int]:
        return [] if example.label is None else [example.label]
