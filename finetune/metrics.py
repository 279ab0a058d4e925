"""The benchmarks' metrics over class numbers. Inputs are equally long sequences of ints; an empty one is an error.

Conventions are scikit-learn's with `zero_division=0`: a class that is never predicted has F1 0, a Matthews
correlation with a constant side is 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def accuracy(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Share of equal pairs."""
    gold_N, predicted_N = _checked(gold, predicted)
    return float(np.mean(gold_N == predicted_N))


def f1_of_class(gold: Sequence[int], predicted: Sequence[int], label: int) -> float:
    """Harmonic mean of precision and recall of one class: 2 TP / (2 TP + FP + FN)."""
    gold_N, predicted_N = _checked(gold, predicted)
    hits = int(np.sum((gold_N == label) & (predicted_N == label)))
    wrong = int(np.sum((gold_N == label) != (predicted_N == label)))
    return 2 * hits / (2 * hits + wrong) if hits else 0.0


def macro_f1(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Mean F1 over the classes that occur in either sequence."""
    labels = sorted(set(gold) | set(predicted))
    return float(np.mean([f1_of_class(gold, predicted, label) for label in labels]))


def matthews_correlation(gold: Sequence[int], predicted: Sequence[int]) -> float:
    """Correlation of two labellings (Matthews 1975; for several classes Gorodkin 2004), -1 to 1."""
    gold_N, predicted_N = _checked(gold, predicted)
    labels = sorted(set(gold_N.tolist()) | set(predicted_N.tolist()))
    gold_counts = np.array([np.sum(gold_N == label) for label in labels], dtype=float)
    predicted_counts = np.array([np.sum(predicted_N == label) for label in labels], dtype=float)
    total, hits = float(len(gold_N)), float(np.sum(gold_N == predicted_N))
    covariance = hits * total - float(gold_counts @ predicted_counts)
    spread = (total**2 - float(gold_counts @ gold_counts)) * (
        total**2 - float(predicted_counts @ predicted_counts)
    )
    return covariance / math.sqrt(spread) if spread > 0 else 0.0


def precision_recall(hits: int, predicted: int, gold: int) -> tuple[float, float, float]:
    """Precision, recall and F1 from counts; what is undefined is 0."""
    precision = hits / predicted if predicted else 0.0
    recall = hits / gold if gold else 0.0
    f1 = 2 * precision * recall / (precision + recall) if hits else 0.0
    return precision, recall, f1


def _checked(gold: Sequence[int], predicted: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    if len(gold) != len(predicted) or not len(gold):
        raise ValueError(f"{len(gold)} labels and {len(predicted)} predictions cannot be compared")
    return np.asarray(gold), np.asarray(predicted)
