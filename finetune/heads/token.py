"""A label for every word of a text: spans of named things, written as B- and I- tags.

A word is labelled at its first token. Texts longer than the model are read in overlapping windows; a word
takes its scores from the window in which it stands farthest from an edge.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerFast

from finetune.encoder import Encoder
from finetune.head import Collate, Features, Head, Item, Rows, logits_of, model_rows, padded
from finetune.tags import Entity, entities_to_tags

_IGNORED = -100


@dataclass(frozen=True)
class TokenExample:
    """A text, its words as half-open character ranges, and its entities (None if hidden)."""

    idx: Any
    text: str
    words: tuple[tuple[int, int], ...]
    entities: tuple[Entity, ...] | None

    def word(self, number: int) -> str:
        """A word, or nothing beyond the text's ends."""
        if not 0 <= number < len(self.words):
            return ""
        start, end = self.words[number]
        return self.text[start:end]


class TokenHead(Head[TokenExample]):
    """The Auto class for token classification. Scores are logits [words, tags] an example."""

    def __init__(self) -> None:
        self.tags: list[str] = ["O"]

    def build(self, encoder: Encoder, labels: Sequence[str]) -> nn.Module:
        return encoder.with_head(AutoModelForTokenClassification, labels)

    def features(
        self, examples: Sequence[TokenExample], tokenizer: PreTrainedTokenizerFast, max_length: int
    ) -> Features:
        encodings = tokenizer(
            [example.text for example in examples],
            truncation=True,
            max_length=max_length,
            stride=max_length // 4,
            return_overflowing_tokens=True,
        )
        rows = model_rows(encodings, tokenizer)
        numbers = list(encodings["overflow_to_sample_mapping"])
        for row, number, encoding in zip(rows, numbers, encodings.encodings, strict=True):
            example = examples[number]
            row["words"] = _first_tokens(example.words, encoding)
            if example.entities is not None:
                tags = entities_to_tags(example.words, example.entities)
                labels = [_IGNORED] * len(row["input_ids"])
                for word, token in row["words"].items():
                    # a type that training has not seen cannot be predicted; its gold span still counts as missed
                    labels[token] = self.tags.index(tags[word]) if tags[word] in self.tags else _IGNORED
                row["labels"] = labels
        return Features(rows, numbers)

    def collate(self, tokenizer: PreTrainedTokenizerFast) -> Collate:
        def collate(rows: Rows) -> dict[str, torch.Tensor]:
            batch = padded(rows, tokenizer)
            if all("labels" in row for row in rows):
                labels = torch.full(batch["input_ids"].shape, _IGNORED)
                for number, row in enumerate(rows):
                    labels[number, : len(row["labels"])] = torch.tensor(row["labels"])
                batch["labels"] = labels
            return batch

        return collate

    def scores(self, outputs: Any, features: Features, examples: Sequence[TokenExample]) -> list[np.ndarray]:
        scores = [np.zeros((len(example.words), len(self.tags))) for example in examples]
        margins = [np.full(len(example.words), -1) for example in examples]
        for row, number, logits_LK in zip(features.rows, features.example, logits_of(outputs), strict=True):
            last = len(row["input_ids"]) - 1
            for word, token in row["words"].items():
                margin = min(token, last - token)
                if margin > margins[number][word]:
                    margins[number][word] = margin
                    scores[number][word] = logits_LK[token]
        return scores

    def items(self, example: TokenExample) -> list[Item]:
        tags = None
        if example.entities is not None:
            tags = entities_to_tags(example.words, example.entities)

        def item(number: int) -> Item:
            around = f"{example.word(number - 1)} {example.word(number + 1)}"
            known = tags is not None and tags[number] in self.tags
            return Item(example.word(number), around, self.tags.index(tags[number]) if known else None)  # type: ignore[index]

        return [item(number) for number in range(len(example.words))]

    def scores_of_items(self, example: TokenExample, probabilities_NK: np.ndarray) -> np.ndarray:
        return probabilities_NK


def _first_tokens(words: Sequence[tuple[int, int]], encoding: Any) -> dict[int, int]:
    """Position of each word's first token in a window, for the words whose beginning is in it."""
    found: dict[int, int] = {}
    word = 0
    for token, (first, last) in enumerate(encoding.offsets):
        if encoding.sequence_ids[token] is None:
            continue
        while word < len(words) and words[word][1] <= first:
            word += 1
        if word < len(words) and first < words[word][1] and last > words[word][0]:
            # in a later window the first token seen may be a word's middle: that window does not hold the word
            begins = first <= words[word][0]
            if begins:
                found.setdefault(word, token)
    return found
