"""Each task's metrics, decisions and records on hand-made cases with known answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import f1_score, matthews_corrcoef

from finetune.data_source import open_source
from finetune.heads.answer import AnswerExample, ScoredAnswer
from finetune.heads.choice import ChoiceExample
from finetune.heads.entity import EntityExample
from finetune.heads.sequence import TextExample
from finetune.heads.token import TokenExample
from finetune.tags import Entity
from finetune.task import TEST, TRAIN, VALIDATION, Decided
from finetune.tasks import SUPERGLUE, find_task
from finetune.tasks.muserc import AnswerId


def texts(labels, groups=None) -> list[TextExample]:
    groups = groups or [""] * len(labels)
    return [
        TextExample(i, "а", None, label, group)
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]


def test_rcb_has_macro_f1_and_accuracy():
    task = find_task("RCB")()
    scores = task.measure(texts([0, 0, 1, 2]), [0, 1, 1, 1])
    expected = f1_score([0, 0, 1, 2], [0, 1, 1, 1], average="macro", zero_division=0)
    assert scores == {"f1": pytest.approx(expected), "accuracy": 0.5}
    assert task.main_figure(scores) == pytest.approx((expected + 0.5) / 2)


@pytest.mark.parametrize("name", ["TERRa", "DaNetQA"])
def test_accuracy_is_the_share_of_right_answers(name):
    task = find_task(name)()
    assert task.measure(texts([0, 1, 1, 0]), [0, 1, 0, 0]) == {"accuracy": 0.75}
    assert task.decide(texts([0]), [np.array([0.2, 0.9])]) == [1]


def test_parus_chooses_the_higher_score():
    task = find_task("PARus")()
    examples = [ChoiceExample(i, (("а", "б"), ("а", "в")), label) for i, label in enumerate((0, 1))]
    made = task.decide(examples, [np.array([3.0, -1.0]), np.array([0.0, -0.1])])
    assert made == [0, 0]
    assert task.measure(examples, made) == {"accuracy": 0.5}
    assert task.record(examples[0], made[0]) == {"idx": 0, "label": 0}


def test_muserc_counts_answers_for_f1a_and_whole_questions_for_em():
    task = find_task("MuSeRC")()
    # passage 0: questions 0 and 1 of two answers; passage 1 has a question 0 of its own
    ids = [(0, 0, 0), (0, 0, 1), (0, 1, 2), (0, 1, 3), (1, 0, 0)]
    gold, made = [1, 0, 1, 1, 0], [1, 0, 1, 0, 0]
    examples = [TextExample(AnswerId(*i), "а", "б", label) for i, label in zip(ids, gold, strict=True)]
    scores = task.measure(examples, made)
    assert scores["f1a"] == pytest.approx(f1_score(gold, made))
    assert scores["f1a"] == pytest.approx(2 * 2 / (2 * 2 + 1))
    assert scores["em"] == pytest.approx(2 / 3)


def test_rucos_takes_the_best_agreement_over_answers():
    task = find_task("RuCoS")()

    def example(idx, answers):
        return EntityExample(
            idx, "", "@placeholder", (0, 12), ("США", "Вальтер Штайнмайер"), (), frozenset(), answers
        )

    examples = [example(0, ("США",)), example(1, ("Штайнмайер", "Россия"))]
    made = task.decide(examples, [np.array([1.0, 0.0]), np.array([-np.inf, 0.0])])
    assert made == ["США", "Вальтер Штайнмайер"]
    assert task.measure(examples, made) == {"f1": pytest.approx((1 + 2 / 3) / 2), "em": 0.5}


def test_a_query_without_candidates_gets_an_empty_answer():
    task = find_task("RuCoS")()
    example = EntityExample(0, "", "@placeholder", (0, 12), (), (), frozenset(), ("США",))
    assert task.decide([example], [np.array([])]) == [""]
    assert task.measure([example], [""]) == {"f1": 0.0, "em": 0.0}


def test_rucola_by_domain_and_error_type():
    task = find_task("RuCoLA")()
    inside = texts([1, 1, 0, 0], ["0", "0", "Syntax", "Semantics"])
    outside = texts([1, 0], ["0", "Hallucination"])
    made_inside, made_outside = [1, 0, 0, 1], [1, 0]
    scores = task.measure_all(
        {VALIDATION: Decided(inside, [], made_inside), "out_of_domain": Decided(outside, [], made_outside)}
    )
    assert scores[VALIDATION] == {
        "mcc": pytest.approx(matthews_corrcoef([1, 1, 0, 0], made_inside)),
        "accuracy": 0.5,
    }
    assert scores["out_of_domain"] == {"mcc": 1.0, "accuracy": 1.0}
    expected = matthews_corrcoef([1, 1, 0, 0, 1, 0], [1, 0, 0, 1, 1, 0])
    assert scores["overall"]["mcc"] == pytest.approx(expected)
    # of one type: found or not; correlation together with all three acceptable sentences
    assert scores["Syntax"] == {
        "mcc": pytest.approx(matthews_corrcoef([0, 1, 1, 1], [0, 1, 0, 1])),
        "accuracy": 1.0,
    }
    assert scores["Semantics"]["accuracy"] == 0.0
    assert "Morphology" not in scores


def test_lidirus_by_category():
    task = find_task("LiDiRus")()
    gold, made = [0, 1, 1, 0], [0, 1, 0, 0]
    examples = texts(gold, ["logic", "logic knowledge", "knowledge", ""])
    scores = task.measure_all({TEST: Decided(examples, [], made)})[TEST]
    assert scores["mcc"] == pytest.approx(matthews_corrcoef(gold, made))
    assert scores["mcc logic"] == 1.0
    assert scores["mcc knowledge"] == pytest.approx(matthews_corrcoef([1, 1], [1, 0]))
    assert "mcc lexical-semantics" not in scores


def test_labels_of_submissions():
    words = {task.layout.task: find_task(task.layout.task)().record for task in SUPERGLUE}
    one = texts([1])[0]
    assert words["TERRa"](one, 1) == {"idx": 0, "label": "not_entailment"}
    assert words["LiDiRus"](one, 0) == {"idx": 0, "label": "entailment"}
    assert words["RCB"](one, 1) == {"idx": 0, "label": "contradiction"}
    assert words["RUSSE"](one, 1) == {"idx": 0, "label": "true"}
    assert words["DaNetQA"](one, 0) == {"idx": 0, "label": "false"}
    assert words["RWSD"](one, 1) == {"idx": 0, "label": "True"}
    assert words["PARus"](one, 1) == {"idx": 0, "label": 1}
    assert find_task("RuCoLA")().record(one, 1) == {"id": 0, "acceptable": 1}


def test_ner_counts_whole_spans_by_class():
    task = find_task("ner")()
    task.head.tags = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    gold = (Entity(0, 4, "PER"), Entity(5, 9, "LOC"), Entity(10, 14, "LOC"))
    example = TokenExample(0, "Маша едет Омск", ((0, 4), (5, 9), (10, 14)), gold)
    made = [Entity(0, 4, "PER"), Entity(5, 14, "LOC")]
    scores = task.measure([example], [made])
    assert scores["precision"] == 0.5
    assert scores["recall"] == pytest.approx(1 / 3)
    assert scores["f1"] == pytest.approx(0.4)
    assert scores["f1 PER"] == 1.0
    assert scores["f1 LOC"] == 0.0
    assert scores["macro f1"] == 0.5


def test_ner_decides_by_tags_of_words():
    task = find_task("ner")()
    task.head.tags = ["O", "B-PER", "I-PER"]
    example = TokenExample(0, "Анна Ли тут", ((0, 4), (5, 7), (8, 11)), ())
    scores = np.array([[0, 1, 0], [0, 0, 1], [1, 0, 0]])
    assert task.decide([example], [scores]) == [[Entity(0, 7, "PER")]]


def test_qa_has_exact_match_and_f1_over_gold_answers():
    task = find_task("qa")()
    examples = [
        AnswerExample("a", "?", "", (("в 1812 году", 0), ("1812", 0))),
        AnswerExample("b", "?", "", (("белый кот", 0),)),
    ]
    scores = [[ScoredAnswer("", 9.0), ScoredAnswer("1812", 1.0)], [ScoredAnswer("кот", 1.0)]]
    made = task.decide(examples, scores)
    assert made == ["1812", "кот"]  # "no answer" is none where every question has one
    assert task.measure(examples, made) == {"f1": pytest.approx((1 + 2 / 3) / 2), "em": 0.5}


@pytest.mark.parametrize("gold", [(), (("да", 0),), None], ids=["none", "some", "hidden"])
@pytest.mark.parametrize("trained_on", [["да"], ["да", ""]], ids=["squad-1", "squad-2"])
def test_qa_says_that_there_is_no_answer_if_training_questions_had_none(tmp_path, trained_on, gold):
    answers = [[{"text": text, "answer_start": 0}] if text else [] for text in trained_on]
    questions = [{"id": str(n), "question": "?", "answers": given} for n, given in enumerate(answers)]
    data = {"data": [{"paragraphs": [{"context": "да", "qas": questions}]}]}
    (tmp_path / "train.json").write_text(json.dumps(data), encoding="utf-8")
    task = find_task("qa")()
    task.read(open_source(str(tmp_path), task.layout), TRAIN)
    scores = [[ScoredAnswer("", 2.0), ScoredAnswer("да", 1.0)]]
    made = task.decide([AnswerExample("a", "?", "да", gold)], scores)
    assert made == ([""] if "" in trained_on else ["да"])


def test_qa_counts_no_answer_as_right_where_there_is_none():
    assert find_task("qa")().measure([AnswerExample("a", "?", "", ())], [""]) == {"f1": 1.0, "em": 1.0}
