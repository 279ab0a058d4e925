"""People's own data: classification with an operating point and two stages, NER, question answering."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from finetune.brat import read_brat, to_brat
from finetune.conll import join_words, read_conll, sentence_entities
from finetune.errors import BadInput
from finetune.fine_tuned import read_fine_tuned
from finetune.operating_point import at_threshold, choose_operating_point, probabilities_of_class
from finetune.tags import Entity
from tests.finetune.conftest import QUICK
from tests.finetune.layouts import sentence, write_csv, write_jsonl


def headlines(count: int, offset: int = 0) -> list[dict]:
    rows = []
    for number in range(offset, offset + count):
        broken = number % 2 == 1
        title = sentence(number).replace("видит", "витид").upper() if broken else sentence(number)
        rows.append({"title": title, "kind": "misprint" if broken else "fine"})
    return rows


def test_classification_with_two_stages_and_an_operating_point(finetune, models, tmp_path):
    write_csv(tmp_path / "noisy" / "train.csv", headlines(40))
    write_csv(tmp_path / "clean" / "train.csv", headlines(24))
    write_csv(tmp_path / "clean" / "dev.csv", headlines(12, 3))
    write_jsonl(tmp_path / "clean" / "test.jsonl", headlines(10, 7))
    answer = finetune(
        "run", "classification", "--model", models["lean_albert"], "--data-dir", tmp_path / "clean",
        "--first-stage-data", tmp_path / "noisy", "--output", tmp_path / "out", "--seeds", 1, "--json", *QUICK,
        "--set", "text_field=title", "--set", "label_field=kind", "--set", "positive_label=misprint",
        "--set", "at_precision=0.9", "--set", "learning_rate=0.01", "--set", "epochs=3",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    seed = answer.json["seeds"][0]
    assert [stage["stage"] for stage in seed["stages"]] == ["first stage", "training"]
    point = seed["findings"]["operating_point"]
    assert point["threshold"] is not None
    assert point["precision"] >= 0.9
    assert set(seed["findings"]["at_operating_point"]) == {"precision", "recall"}
    assert set(answer.json["scores"]) == {"validation", "test"}
    # the saved model knows its threshold
    model = tmp_path / "out" / "seed-0" / "model"
    (tmp_path / "new.txt").write_text("КОШКА ВИТИД\nКошка видит\n")
    told = finetune(
        "predict", tmp_path / "new.txt", "--model", model, "--output", tmp_path / "p.jsonl", "--json"
    )
    lines = [json.loads(line) for line in (tmp_path / "p.jsonl").read_text().splitlines()]
    assert told.json["texts"] == len(lines) == 2
    for line in lines:
        assert line["positive"] == (line["probabilities"]["misprint"] >= point["threshold"])
        assert sum(line["probabilities"].values()) == pytest.approx(1)


def test_the_first_stage_must_have_the_same_labels(finetune, tmp_path):
    write_csv(tmp_path / "noisy" / "train.csv", [{"text": "а", "label": "x"}, {"text": "б", "label": "z"}])
    write_csv(
        tmp_path / "clean" / "train.csv", [{"text": "а", "label": "x"}, {"text": "б", "label": "y"}] * 3
    )
    answer = finetune(
        "run", "classification", "--model", "majority", "--data-dir", tmp_path / "clean",
        "--first-stage-data", tmp_path / "noisy", "--output", tmp_path / "out",
    )  # fmt: skip
    assert answer.code == 2
    assert "--first-stage-data has the labels x, z, --data-dir x, y" in answer.error


def test_a_column_that_is_not_there_is_named(finetune, tmp_path):
    write_csv(tmp_path / "train.csv", [{"title": "а", "label": "x"}, {"title": "б", "label": "y"}] * 3)
    answer = finetune(
        "run", "classification", "--model", "tfidf", "--data-dir", tmp_path, "--output", tmp_path / "out"
    )
    assert answer.code == 2
    assert "field 'text' is missing (found: title, label)" in answer.error


def test_a_tenth_is_held_out_where_no_validation_set_is_given(finetune, tmp_path):
    rows = [{"text": sentence(number), "label": "ab"[number % 2]} for number in range(40)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    answer = finetune(
        "run",
        "classification",
        "--model",
        "tfidf",
        "--data-dir",
        tmp_path,
        "--output",
        tmp_path / "out",
        "--json",
    )
    assert answer.json["examples"] == {"train": 36, "validation": 4}
    assert "held out for validation: 4" in answer.err


def test_the_operating_point_is_the_best_recall_that_the_precision_allows():
    probabilities = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    positive = [True, True, False, True, False, True]
    point = choose_operating_point(probabilities, positive, "bad", 0.75)
    assert (point.threshold, point.precision, point.recall) == (0.6, 0.75, 0.75)
    assert choose_operating_point(probabilities, positive, "bad", 1.0).threshold == 0.8
    assert choose_operating_point(probabilities, positive, "bad", 0.1).recall == 1.0
    assert at_threshold(probabilities, positive, 0.6) == {"precision": 0.75, "recall": 0.75}


def test_an_operating_point_that_cannot_be_reached_has_no_threshold():
    point = choose_operating_point([0.9, 0.1], [False, True], "bad", 0.9)
    assert (point.threshold, point.recall) == (None, 0.0)


def test_equal_probabilities_stand_or_fall_together():
    point = choose_operating_point([0.5, 0.5, 0.5], [True, False, True], "bad", 0.9)
    assert point.threshold is None


def test_scikit_learn_finds_the_same_operating_point():
    rng = np.random.default_rng(0)
    for _ in range(50):
        probabilities, positive = rng.random(20).round(1), rng.random(20) < 0.4
        if not positive.any():
            continue
        point = choose_operating_point(probabilities.tolist(), positive.tolist(), "x", 0.6)
        precision, recall, _ = precision_recall_curve(positive, probabilities)
        reachable = recall[:-1][precision[:-1] >= 0.6]
        assert point.recall == pytest.approx(reachable.max() if len(reachable) else 0.0)


def test_probabilities_are_softmax_and_do_not_overflow():
    assert probabilities_of_class([np.array([1000.0, 1000.0]), np.array([-5.0, 800.0])], 1) == [0.5, 1.0]


CONLL = "-DOCSTART- -X- O O\n\nМария NNP B-PER\nКюри NNP I-PER\nв IN O\nПариже NNP B-LOC\n. . O\n\nДа UH O\n"


def conll_folder(root, repeat: int = 4):
    root.mkdir(parents=True, exist_ok=True)
    for name in ("train", "dev"):
        (root / f"{name}.conll").write_text(CONLL * repeat, encoding="utf-8")
    # a test file without tags
    (root / "test.conll").write_text("Анна\nживёт\n\nв\nПариже\n", encoding="utf-8")
    return root


def test_ner_over_conll_files(finetune, models, tmp_path):
    answer = finetune(
        "run", "ner", "--model", models["roberta"], "--data-dir", conll_folder(tmp_path / "data"),
        "--output", tmp_path / "out", "--seeds", 1, "--json", *QUICK,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert set(answer.json["scores"]["validation"]) == {
        "f1",
        "precision",
        "recall",
        "macro f1",
        "f1 LOC",
        "f1 PER",
    }
    assert answer.json["baselines"]["tfidf"]["validation"]["f1"] == 1.0
    words = [
        line.split("\t")[0] for line in (tmp_path / "out" / "seed-0" / "test.conll").read_text().split("\n")
    ]
    assert [word for word in words if word] == ["Анна", "живёт", "в", "Париже"]


@pytest.mark.parametrize("command", ["predict", "explain"])
@pytest.mark.parametrize("task", ["PARus", "ner", "qa", "RUSSE"])
def test_only_classifiers_predict_files_and_are_explained(finetune, tmp_path, command, task):
    marker = {"task": task, "labels": ["0", "1"], "max_length": 48, "findings": {}}
    (tmp_path / "finetune.json").write_text(json.dumps(marker), encoding="utf-8")
    (tmp_path / "texts.txt").write_text("Кошка видит\tСобака идёт\n", encoding="utf-8")
    file = [tmp_path / "texts.txt"] if command == "predict" else ["--file", tmp_path / "texts.txt"]
    answer = finetune(command, *file, "--model", tmp_path, "--output", tmp_path / "out")
    assert answer.code == 2
    assert f"is a model of {task}: give one that was fine-tuned to classify texts" in answer.error


def test_ner_over_brat_folders(finetune, models, tmp_path):
    text = "Мария Кюри\r\nжила в Париже и Варшаве."
    place, city = text.index("Париже"), text.index("Варшаве")
    annotations = (
        f"T1\tPER 0 10\tМария Кюри\nT2\tPER 0 5\tМария\n#1\tAnnotatorNotes T1\tда\nR1\tlives Arg1:T1 Arg2:T3\n"
        f"T3\tLOC {place} {place + 6};{city} {city + 7}\tПариже Варшаве\n"
    )
    for split in ("train", "validation"):
        folder = tmp_path / "data" / split
        folder.mkdir(parents=True)
        for number in range(3):
            with (folder / f"{number}.txt").open("w", encoding="utf-8", newline="") as file:
                file.write(text)
            (folder / f"{number}.ann").write_text(annotations, encoding="utf-8")
    answer = finetune(
        "run", "ner", "--model", models["bert"], "--data-dir", tmp_path / "data", "--output", tmp_path / "out",
        "--seeds", 1, "--json", *QUICK,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.json["notes"] == {
        "entities inside longer ones, left out": 6,
        "discontinuous entities, read as one piece": 6,
    }
    assert (tmp_path / "out" / "seed-0" / "validation" / "0.ann").is_file()


def test_brat_offsets_count_every_character(tmp_path):
    with (tmp_path / "a.txt").open("w", encoding="utf-8", newline="") as file:
        file.write("да\r\nМария")
    (tmp_path / "a.ann").write_text("T1\tPER 4 9\tМария\n", encoding="utf-8")
    from collections import Counter

    (document,) = read_brat(tmp_path, Counter())
    assert document.text[4:9] == "Мария"
    assert to_brat(document.text, document.entities) == "T1\tPER 4 9\tМария\n"


@pytest.mark.parametrize("line", ["T1\tPER 4\tа", "T1 PER 0 2 а", "T1\tPER 0 99\tа", "T1\tPER 2 2\t"])
def test_a_bad_line_of_brat_is_named(tmp_path, line):
    from collections import Counter

    (tmp_path / "a.txt").write_text("Мария", encoding="utf-8")
    (tmp_path / "a.ann").write_text(line, encoding="utf-8")
    with pytest.raises(BadInput, match=r"a\.ann, line 1"):
        list(read_brat(tmp_path, Counter()))


def test_conll_in_iob_and_bioes(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("Анна\tI-PER\nв\tO\nНижнем\tB-LOC\nНовгороде\tE-LOC\nОмск\tS-LOC\n", encoding="utf-8")
    ((words, tags),) = read_conll(path)
    text, places = join_words(words)
    assert text == "Анна в Нижнем Новгороде Омск"
    assert sentence_entities(places, tags) == [
        Entity(0, 4, "PER"),
        Entity(7, 23, "LOC"),
        Entity(24, 28, "LOC"),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [("Анна B-PER\nв\n", "line 2: 1 columns, 2 before"), ("Анна PERSON\n", "is not a tag")],
)
def test_a_bad_line_of_conll_is_named(tmp_path, content, message):
    path = tmp_path / "a.conll"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(BadInput, match=message):
        list(read_conll(path))


def squad(count: int) -> dict:
    def question(number: int) -> dict:
        text = sentence(number).split()[0]
        return {"id": f"q{number}", "question": "Кто слышит?", "answers": [{"text": text, "answer_start": 0}]}

    paragraphs = [{"context": sentence(number), "qas": [question(number)]} for number in range(count)]
    return {"version": "1.1", "data": [{"title": "а", "paragraphs": paragraphs}]}


def test_question_answering_writes_predictions_for_squads_own_script(finetune, models, tmp_path):
    for name in ("train", "dev"):
        (tmp_path / f"{name}.json").write_text(json.dumps(squad(8)), encoding="utf-8")
    answer = finetune(
        "run", "qa", "--model", models["lean_albert"], "--data-dir", tmp_path, "--output", tmp_path / "out",
        "--seeds", 1, "--json", *QUICK,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert set(answer.json["scores"]["validation"]) == {"f1", "em"}
    predictions = json.loads((tmp_path / "out" / "seed-0" / "predictions.json").read_text())
    assert set(predictions) == {f"q{number}" for number in range(8)}
    assert read_fine_tuned(tmp_path / "out" / "seed-0" / "model").findings == {"may_abstain": False}


def test_an_answer_that_does_not_stand_where_it_says_is_named(finetune, tmp_path):
    data = squad(2)
    data["data"][0]["paragraphs"][1]["qas"][0]["answers"][0]["answer_start"] = 3
    (tmp_path / "train.json").write_text(json.dumps(data), encoding="utf-8")
    answer = finetune("run", "qa", "--model", "tfidf", "--data-dir", tmp_path, "--output", tmp_path / "out")
    assert answer.code == 2
    assert "data[0], paragraphs[1], qas[0]: answer 'Собака' does not stand at character 3" in answer.error
