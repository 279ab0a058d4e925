"""A threshold on one class's probability: the most recall that a given precision allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from finetune.metrics import precision_recall


@dataclass(frozen=True)
class OperatingPoint:
    """What is found by calling everything at or above `threshold` positive.

    `threshold` is None, and recall 0, where no threshold reaches the precision asked for.
    """

    positive_label: str
    asked_precision: float
    threshold: float | None
    precision: float
    recall: float

    def as_json(self) -> dict[str, object]:
        return asdict(self)


def choose_operating_point(
    probabilities: Sequence[float], positive: Sequence[bool], label: str, precision: float
) -> OperatingPoint:
    """The threshold with the highest recall whose precision is at least `precision`; of equals the highest.

    `probabilities` are those of the positive class, `positive` says which examples are of it. Examples of
    equal probability stand or fall together, so thresholds are taken between distinct values only.
    """
    score_N, gold_N = np.asarray(probabilities, dtype=float), np.asarray(positive, dtype=bool)
    order = np.argsort(-score_N, kind="stable")
    score_N, gold_N = score_N[order], gold_N[order]
    hits_N = np.cumsum(gold_N)
    precision_N = hits_N / np.arange(1, len(gold_N) + 1)
    last_of_equals_N = np.append(score_N[1:] != score_N[:-1], True)
    fits = np.flatnonzero(last_of_equals_N & (precision_N >= precision) & (hits_N > 0))
    if not len(fits):
        return OperatingPoint(label, precision, None, 0.0, 0.0)
    best = fits[np.argmax(hits_N[fits])]
    return OperatingPoint(
        label, precision, float(score_N[best]), float(precision_N[best]), float(hits_N[best] / gold_N.sum())
    )


def at_threshold(
    probabilities: Sequence[float], positive: Sequence[bool], threshold: float
) -> dict[str, float]:
    """Precision and recall of calling everything at or above the threshold positive."""
    called_N, gold_N = np.asarray(probabilities) >= threshold, np.asarray(positive, dtype=bool)
    hits = int(np.sum(called_N & gold_N))
    precision, recall, _ = precision_recall(hits, int(called_N.sum()), int(gold_N.sum()))
    return {"precision": precision, "recall": recall}


def probabilities_of_class(scores: Sequence[np.ndarray], number: int) -> list[float]:
    """Softmax of logits [labels] at one class, for every example."""
    logits_NK = np.stack(scores).astype(float)
    exponent_NK = np.exp(logits_NK - logits_NK.max(axis=1, keepdims=True))
    return (exponent_NK[:, number] / exponent_NK.sum(axis=1)).tolist()
