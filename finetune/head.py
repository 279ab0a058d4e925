"""What a task puts on top of an encoder: examples to model inputs, and model outputs to scores.

A head also says how its examples look to a baseline that knows no encoder: as items of two texts and a
target class. `Head.scores` and `Head.scores_of_items` give the same kind of scores, so a task decides and
measures alike for all models.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedTokenizerFast

from finetune.encoder import Encoder

E = TypeVar("E")
Rows = list[dict[str, Any]]
Collate = Callable[[Rows], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Features:
    """Model inputs of some examples: several rows an example where a text is longer than the model.

    `example` holds the number of the example each row is of; `notes` counts what a log should tell.
    """

    rows: Rows
    example: list[int]
    notes: Counter[str] = field(default_factory=Counter)

    def by_length(self) -> Features:
        """The same rows, the longest first: batches of like length have little padding."""
        order = sorted(range(len(self.rows)), key=lambda i: -len(self.rows[i].get("input_ids", ())))
        return Features([self.rows[i] for i in order], [self.example[i] for i in order], self.notes)

    def in_order_of_examples(self, outputs: Any) -> list[Any]:
        """The outputs of rows that are one an example, in the order of the examples."""
        found = dict(zip(self.example, logits_of(outputs), strict=True))
        return [found[number] for number in range(len(self.example))]


@dataclass(frozen=True)
class Item:
    """One decision of an example as a baseline sees it; `target` is a class number, None if unknown."""

    first: str
    second: str
    target: int | None


class Head(ABC, Generic[E]):
    """How examples of one shape are encoded, modelled and scored."""

    input_labels: tuple[str, ...] = ("labels",)
    rows_have_length = True  # whether the Trainer can see how long a row is, to batch like with like

    @abstractmethod
    def build(self, encoder: Encoder, labels: Sequence[str]) -> nn.Module:
        """The encoder's model under this head."""

    @abstractmethod
    def features(
        self, examples: Sequence[E], tokenizer: PreTrainedTokenizerFast, max_length: int
    ) -> Features:
        """Inputs of at most `max_length` tokens."""

    @abstractmethod
    def collate(self, tokenizer: PreTrainedTokenizerFast) -> Collate:
        """Makes a padded batch of rows."""

    @abstractmethod
    def scores(self, outputs: Any, features: Features, examples: Sequence[E]) -> list[Any]:
        """One entry an example from the model's outputs over all rows, in order."""

    @abstractmethod
    def items(self, example: E) -> list[Item]:
        """The example's decisions as pairs of texts."""

    @abstractmethod
    def scores_of_items(self, example: E, probabilities_NK: np.ndarray) -> Any:
        """Scores from class probabilities [items, classes]."""

    def targets(self, example: E) -> list[int]:
        """What the majority baseline counts: the targets of the items, unless a head knows better."""
        return [item.target for item in self.items(example) if item.target is not None]

    def majority_scores(self, example: E, counts: Counter[int], classes: int) -> Any:
        """Scores of the baseline that always answers the most frequent target of the training set."""
        most = max(counts, key=lambda target: (counts[target], -target)) if counts else 0
        one_hot_NK = np.zeros((len(self.items(example)), classes))
        one_hot_NK[:, most] = 1.0
        return self.scores_of_items(example, one_hot_NK)


def logits_of(outputs: Any) -> Any:
    """The scores among a model's outputs: some architectures give further tensors behind them."""
    return outputs[0] if isinstance(outputs, tuple) else outputs


def model_rows(encodings: Any, tokenizer: PreTrainedTokenizerFast) -> Rows:
    """One dictionary a row of a batch encoding, with the inputs this tokenizer's model takes and no more."""
    names = [name for name in tokenizer.model_input_names if name in encodings]
    return [{name: encodings[name][i] for name in names} for i in range(len(encodings["input_ids"]))]


def encode_pairs(
    pairs: Sequence[tuple[str, str | None]], tokenizer: PreTrainedTokenizerFast, max_length: int
) -> Any:
    """Batch encoding of texts, or of pairs of texts where the first pair has a second one."""
    firsts = [first for first, _second in pairs]
    seconds = [second or "" for _first, second in pairs] if pairs and pairs[0][1] is not None else None
    return tokenizer(firsts, seconds, truncation="longest_first", max_length=max_length)


def class_labels(rows: Rows) -> dict[str, torch.Tensor]:
    """The batch's `labels` [B], if every row has one."""
    if not all("labels" in row for row in rows):
        return {}
    return {"labels": torch.tensor([row["labels"] for row in rows])}


def count_truncated(encodings: Any) -> Counter[str]:
    """How many texts did not fit; nothing at all where all did."""
    cut = sum(bool(encoding.overflowing) for encoding in encodings.encodings)
    return Counter({"texts cut to the model's length": cut}) if cut else Counter()


def padded(rows: Rows, tokenizer: PreTrainedTokenizerFast) -> dict[str, torch.Tensor]:
    """A batch of the tokenizer's own inputs, padded to the longest row (to a multiple of 8: tensor cores)."""
    names = set(tokenizer.model_input_names)
    inputs = [{name: value for name, value in row.items() if name in names} for row in rows]
    return dict(tokenizer.pad(inputs, padding=True, pad_to_multiple_of=8, return_tensors="pt"))
