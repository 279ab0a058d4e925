"""Metrics: cases worked out by hand, and scikit-learn's opinion on random ones."""

from __future__ import annotations

import random

import pytest
from sklearn import metrics as sklearn_metrics

from finetune.answer_match import best_over, exact_match, normalize, token_f1
from finetune.metrics import accuracy, f1_of_class, macro_f1, matthews_correlation, precision_recall


def test_hand_made_binary_case():
    gold, predicted = [1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 0, 0]
    # TP 2, FN 1, FP 1, TN 2
    assert accuracy(gold, predicted) == pytest.approx(4 / 6)
    assert f1_of_class(gold, predicted, 1) == pytest.approx(4 / 6)
    assert matthews_correlation(gold, predicted) == pytest.approx((2 * 2 - 1 * 1) / 9)


def test_hand_made_case_of_three_classes():
    gold, predicted = [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 0, 0]
    # F1: class 0: 2·1/(2·1+1+2) = 2/5, class 1: 2·2/(2·2+0+1) = 4/5, class 2 is never predicted
    assert macro_f1(gold, predicted) == pytest.approx((2 / 5 + 4 / 5 + 0) / 3)


@pytest.mark.parametrize("predicted", [[1, 1, 1, 1], [0, 0, 0, 0]])
def test_a_constant_prediction_correlates_with_nothing(predicted):
    assert matthews_correlation([1, 0, 1, 1], predicted) == 0.0


def test_perfect_and_reversed_predictions():
    assert matthews_correlation([0, 1, 1], [0, 1, 1]) == 1.0
    assert matthews_correlation([0, 1, 1], [1, 0, 0]) == -1.0


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.parametrize("classes", [2, 3, 5])
def test_scikit_learn_agrees(classes):
    rng = random.Random(classes)
    for _ in range(15):
        length = rng.randint(1, 12)
        gold = [rng.randrange(classes) for _ in range(length)]
        predicted = [rng.randrange(classes) for _ in range(length)]
        assert accuracy(gold, predicted) == pytest.approx(sklearn_metrics.accuracy_score(gold, predicted))
        expected = sklearn_metrics.f1_score(gold, predicted, average="macro", zero_division=0)
        assert macro_f1(gold, predicted) == pytest.approx(expected)
        label = rng.randrange(classes)
        expected = sklearn_metrics.f1_score(gold, predicted, labels=[label], average="macro", zero_division=0)
        assert f1_of_class(gold, predicted, label) == pytest.approx(expected)
        correlation = sklearn_metrics.matthews_corrcoef(gold, predicted)
        assert matthews_correlation(gold, predicted) == pytest.approx(correlation)


def test_nothing_cannot_be_measured():
    with pytest.raises(ValueError, match="cannot be compared"):
        accuracy([], [])
    with pytest.raises(ValueError, match="cannot be compared"):
        matthews_correlation([1], [1, 0])


def test_precision_and_recall_from_counts():
    assert precision_recall(2, 4, 5) == pytest.approx((0.5, 0.4, 4 / 9))
    assert precision_recall(0, 0, 5) == (0.0, 0.0, 0.0)


def test_answers_are_compared_without_case_and_punctuation():
    assert normalize("  Франк-Вальтер  Штайнмайер. ") == "франквальтер штайнмайер"
    assert exact_match("США,", "сша") == 1.0
    assert exact_match("Россия", "России") == 0.0


def test_f1_of_words_counts_repeated_words_once_each():
    assert token_f1("Вальтер Штайнмайер", "Штайнмайер") == pytest.approx(2 / 3)
    assert token_f1("да да нет", "да") == pytest.approx(2 / 4)
    assert token_f1("да", "нет") == 0.0
    assert token_f1("", "") == 1.0
    assert token_f1("...", "да") == 0.0


def test_the_best_gold_answer_counts():
    assert best_over(exact_match, "США", ["Россия", "США"]) == 1.0
    assert best_over(exact_match, "США", []) == 0.0
