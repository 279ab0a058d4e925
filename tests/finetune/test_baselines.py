"""The free floors under every score."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.baselines import Majority, TfIdf
from finetune.data_source import open_source
from finetune.heads.sequence import TextExample
from finetune.outcome import measure_floors
from finetune.splits import Splits, read_splits
from finetune.task import TEST, TRAIN, VALIDATION
from finetune.tasks import find_task
from tests.finetune.layouts import MAKERS


@pytest.mark.parametrize("name", MAKERS)
def test_both_baselines_come_with_every_task(superglue, name):
    task = find_task(name)()
    splits = read_splits(task, open_source(str(superglue), task.layout))
    floors = measure_floors(task, splits, splits.train)
    assert set(floors) == {"majority", "tfidf"}
    for scores in floors.values():
        assert set(task.metrics) <= set(scores[VALIDATION])


def labelled(*labels: int) -> list[TextExample]:
    return [TextExample(i, "да" if label else "нет", "и", label) for i, label in enumerate(labels)]


def test_majority_is_that_of_the_training_set():
    task = find_task("TERRa")()
    splits = Splits({TRAIN: labelled(1, 1, 0), VALIDATION: labelled(0, 0, 0, 1)}, {})
    assert measure_floors(task, splits, splits.train)["majority"][VALIDATION] == {"accuracy": 0.25}


def test_words_that_tell_the_classes_apart_are_learned():
    task = find_task("TERRa")()
    splits = Splits({TRAIN: labelled(*[0, 1] * 10), VALIDATION: labelled(0, 1, 1)}, {})
    assert measure_floors(task, splits, splits.train)["tfidf"][VALIDATION] == {"accuracy": 1.0}


@pytest.mark.parametrize("texts", [("", ""), ("...", "!")])
def test_texts_without_a_word_are_no_obstacle(texts):
    task = find_task("TERRa")()
    examples = [TextExample(i, *texts, label) for i, label in enumerate((0, 1, 1))]
    baseline = TfIdf(task)
    baseline.fit(examples)
    assert baseline.decide(examples).predictions == [1, 1, 1]


def test_one_class_only_is_always_answered():
    task = find_task("RCB")()
    baseline = TfIdf(task)
    baseline.fit(labelled(1, 1))
    assert baseline.scores(labelled(0))[0].tolist() == [0, 1, 0]


def test_majority_of_rucos_is_the_entity_named_most_often(superglue):
    task = find_task("RuCoS")()
    (example, *_) = task.read(open_source(str(superglue), task.layout), TRAIN)
    baseline = Majority(task)
    baseline.fit([example])
    scores = baseline.scores([example])[0]
    named = [
        sum(m.candidate == number for m in example.mentions) for number in range(len(example.candidates))
    ]
    assert np.array_equal(scores, named)


@pytest.mark.parametrize("model", ["majority", "tfidf"])
def test_a_baseline_is_a_model_that_can_be_submitted(finetune, superglue, tmp_path, model):
    answer = finetune(
        "run", "RWSD", "--model", model, "--data-dir", superglue, "--output", tmp_path / "out", "--json"
    )
    assert answer.code == 0, answer.err
    assert answer.json["scores"]["validation"] == {
        "accuracy": {"mean": answer.json["baselines"][model]["validation"]["accuracy"], "std": None}
    }
    assert (tmp_path / "out" / "seed-0" / "predictions" / f"{TEST}.jsonl").is_file()


def test_rwsd_shows_the_majority_beside_the_score(finetune, superglue, tmp_path):
    answer = finetune(
        "run", "RWSD", "--model", "tfidf", "--data-dir", superglue, "--output", tmp_path / "out"
    )
    lines = {tuple(line.split()[:2]): line for line in answer.out.splitlines()}
    assert ("majority", "validation") in lines
