"""Exact match and token F1 of answers in words, as SQuAD (Rajpurkar 2016), ReCoRD and RuCoS define them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Iterable

_PUNCTUATION = re.compile(f"[{re.escape(string.punctuation)}]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation, English articles and extra spaces; «» stay, as in the originals."""
    return " ".join(_ARTICLES.sub(" ", _PUNCTUATION.sub("", text.lower())).split())


def exact_match(prediction: str, gold: str) -> float:
    return float(normalize(prediction) == normalize(gold))


def token_f1(prediction: str, gold: str) -> float:
    """F1 over the words of both texts as bags; two empty texts agree."""
    predicted, expected = normalize(prediction).split(), normalize(gold).split()
    if not predicted or not expected:
        return float(predicted == expected)
    common = sum((Counter(predicted) & Counter(expected)).values())
    return 2 * common / (len(predicted) + len(expected))


def best_over(metric: Callable[[str, str], float], prediction: str, golds: Iterable[str]) -> float:
    """The metric against the gold answer it agrees with most; 0 without gold answers."""
    return max((metric(prediction, gold) for gold in golds), default=0.0)
