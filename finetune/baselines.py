"""Floors under every score: the majority answer, and TF-IDF with logistic regression.

Both know a task by its head's items (pairs of texts with a class) and give the same kind of scores as a
model, so decisions and metrics are the same code.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from finetune.head import Item
from finetune.task import Decided, Task

_A_WORD = re.compile(r"(?u)\b\w+\b")
_MOST_ITEMS = 100_000  # beyond it the regression takes minutes and learns nothing more


class Baseline(ABC):
    """Learns from labelled examples, then decides about any."""

    name: str

    def __init__(self, task: Task[Any]) -> None:
        self.task = task

    @abstractmethod
    def fit(self, examples: Sequence[Any]) -> None:
        """Learn from labelled examples."""

    @abstractmethod
    def scores(self, examples: Sequence[Any]) -> list[Any]:
        """Scores as the task's head gives them."""

    def decide(self, examples: Sequence[Any]) -> Decided[Any]:
        scores = self.scores(examples)
        return Decided(list(examples), scores, self.task.decide(examples, scores))


class Majority(Baseline):
    """Always the most frequent answer of the training set."""

    name = "majority"

    def fit(self, examples: Sequence[Any]) -> None:
        targets = (self.task.head.targets(example) for example in examples)
        self._counts = Counter(target for some in targets for target in some)

    def scores(self, examples: Sequence[Any]) -> list[Any]:
        classes = max(2, len(self.task.labels))
        return [self.task.head.majority_scores(example, self._counts, classes) for example in examples]


class TfIdf(Baseline):
    """Logistic regression over TF-IDF of words and pairs of words of both texts, and their cosine.

    Words are taken as letters and numbers in lower case; single letters count, for they are Russian words.
    """

    name = "tfidf"

    def fit(self, examples: Sequence[Any]) -> None:
        items = [item for example in examples for item in self.task.head.items(example)]
        items = _thinned([item for item in items if item.target is not None])
        self._vectors = TfidfVectorizer(
            token_pattern=_A_WORD.pattern, ngram_range=(1, 2), sublinear_tf=True, max_features=100_000
        )
        targets = [item.target for item in items if item.target is not None]
        texts = sorted({text for item in items for text in (item.first, item.second)})
        # of one class only, or without a word, there is nothing to separate
        self._constant: int | None = None
        if len(set(targets)) < 2 or not any(_A_WORD.search(text) for text in texts):
            self._constant = Counter(targets).most_common(1)[0][0] if targets else 0
            return
        self._vectors.fit(texts)
        self._regression = LogisticRegression(C=10.0, max_iter=1000)
        self._regression.fit(self._matrix(items), targets)

    def scores(self, examples: Sequence[Any]) -> list[Any]:
        found = [self.task.head.items(example) for example in examples]
        flat = [item for items in found for item in items]
        probability_NK = self._probabilities(flat)
        ends = np.cumsum([len(items) for items in found])
        parts = np.split(probability_NK, ends[:-1])
        return [
            self.task.head.scores_of_items(example, part)
            for example, part in zip(examples, parts, strict=True)
        ]

    def _probabilities(self, items: Sequence[Item]) -> np.ndarray:
        """Class probabilities [items, classes], also of classes training has not seen."""
        full_NK = np.zeros((len(items), max(2, len(self.task.labels))))
        if self._constant is not None:
            full_NK[:, self._constant] = 1.0
        elif items:
            full_NK[:, self._regression.classes_] = self._regression.predict_proba(self._matrix(items))
        return full_NK

    def _matrix(self, items: Sequence[Item]) -> Any:
        """[items, features]; a text that many items share is looked at once."""
        texts = list(dict.fromkeys(text for item in items for text in (item.first, item.second)))
        number = {text: i for i, text in enumerate(texts)}
        vectors = self._vectors.transform(texts).tocsr()
        first = vectors[[number[item.first] for item in items]]
        second = vectors[[number[item.second] for item in items]]
        cosine = sparse.csr_matrix(first.multiply(second).sum(axis=1))
        return sparse.hstack((first, second, cosine)).tocsr()


BASELINES: dict[str, type[Baseline]] = {"majority": Majority, "tfidf": TfIdf}


def _thinned(items: list[Item]) -> list[Item]:
    step = -(-len(items) // _MOST_ITEMS)
    return items[::step] if items else items
