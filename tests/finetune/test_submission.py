"""What goes to the leaderboards: forms, label words, checks."""

from __future__ import annotations

import csv
import io
import json
import zipfile

import pytest

from finetune.errors import BadInput
from finetune.submission import check_items
from tests.finetune.layouts import MAKERS


@pytest.fixture(scope="module")
def runs(superglue, rucola_files, tmp_path_factory):
    """Majority baselines of all ten tasks."""
    from finetune.commands import run_command

    root = tmp_path_factory.mktemp("runs")
    for task in (*MAKERS, "LiDiRus"):
        run_command(task, "majority", str(superglue), root / task, 1)
    run_command("RuCoLA", "majority", str(rucola_files), root / "RuCoLA", 1)
    return root


@pytest.fixture(scope="module")
def archive(runs, tmp_path_factory):
    from finetune.submission import submit

    output = tmp_path_factory.mktemp("submission") / "submission.zip"
    submit(runs, output)
    with zipfile.ZipFile(output) as file:
        return {name: file.read(name).decode("utf-8") for name in file.namelist()}


def lines(archive, task):
    return [json.loads(line) for line in archive[f"{task}.jsonl"].splitlines()]


def test_there_is_a_file_for_every_task(archive):
    assert set(archive) == {*(f"{task}.jsonl" for task in (*MAKERS, "LiDiRus")), "RuCoLA.csv"}


@pytest.mark.parametrize(
    ("task", "labels"),
    [
        ("LiDiRus", {"entailment", "not_entailment"}),
        ("RCB", {"entailment", "contradiction", "neutral"}),
        ("PARus", {0, 1}),
        ("TERRa", {"entailment", "not_entailment"}),
        ("RUSSE", {"true", "false"}),
        ("RWSD", {"True", "False"}),
        ("DaNetQA", {"true", "false"}),
    ],
)
def test_each_line_has_idx_and_a_label_in_the_tasks_own_words(archive, task, labels):
    items = lines(archive, task)
    assert [item["idx"] for item in items] == list(range(6))
    for item in items:
        assert set(item) == {"idx", "label"}
        assert item["label"] in labels
        assert not isinstance(item["label"], bool)


def test_muserc_is_nested_by_passage_and_question(archive):
    items = lines(archive, "MuSeRC")
    assert [item["idx"] for item in items] == list(range(6))
    question = items[2]["passage"]["questions"][1]
    assert question["idx"] == 21
    assert [answer["idx"] for answer in question["answers"]] == [203, 204, 205]
    assert {answer["label"] for answer in question["answers"]} <= {0, 1}


def test_rucos_answers_in_the_words_of_the_text(archive):
    assert all(isinstance(item["label"], str) and item["label"] for item in lines(archive, "RuCoS"))


def test_rucola_is_a_csv_with_two_columns(archive):
    rows = list(csv.DictReader(io.StringIO(archive["RuCoLA.csv"])))
    assert [row["id"] for row in rows] == [str(number) for number in range(7)]
    assert {tuple(row) for row in rows} == {("id", "acceptable")}
    assert {row["acceptable"] for row in rows} <= {"0", "1"}


def test_the_command_says_what_it_wrote_and_what_to_mind(finetune, runs, tmp_path):
    answer = finetune("submit", "--runs", runs / "TERRa", "--output", tmp_path / "one.zip")
    assert answer.code == 0
    assert "TERRa: 6 items, seed 0" in answer.out
    assert "not in it: LiDiRus, RCB, PARus" in answer.err
    assert "TERRa: 6 items, the published test set has 3198" in answer.err


def test_rucola_also_lies_beside_the_zip(finetune, runs, tmp_path):
    answer = finetune("submit", "--runs", runs / "RuCoLA", "--output", tmp_path / "one.zip", "--json")
    assert answer.json["items"] == {"RuCoLA": 7}
    assert (tmp_path / "RuCoLA.csv").read_text().splitlines()[0] == "id,acceptable"


def test_two_runs_of_one_task_are_refused(finetune, runs, superglue, tmp_path):
    for name in ("one", "two"):
        finetune("run", "TERRa", "--model", "majority", "--data-dir", superglue, "--output", tmp_path / name)
    answer = finetune("submit", "--runs", tmp_path, "--output", tmp_path / "x.zip")
    assert answer.code == 2
    assert "TERRa: two runs below" in answer.error
    assert not (tmp_path / "x.zip").exists()


def tamper(root, tmp_path, task, change):
    """A run whose predictions on the test set were changed by hand."""
    import shutil

    shutil.copytree(root / task, tmp_path / task)
    path = tmp_path / task / "seed-0" / "predictions" / "test.jsonl"
    path.write_text("".join(line + "\n" for line in change(path.read_text().splitlines())))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], "has 5 predictions, the test set 6 items"),
        (lambda rows: [rows[0], *rows[:-1]], "idx 0 occurs twice"),
        (lambda rows: [row.replace("entailment", "yes") for row in rows], "'yes', not one of 'entailment'"),
        (lambda rows: [row.replace('"idx": 3', '"idx": "3"') for row in rows], "not a whole number"),
        (lambda rows: [*rows[:-1], rows[-1][:8]], "line 6: not a whole JSON object"),
    ],
)
def test_wrong_predictions_do_not_leave(finetune, runs, tmp_path, change, message):
    tamper(runs, tmp_path, "TERRa", lambda rows: change([row.replace("not_", "") for row in rows]))
    answer = finetune("submit", "--runs", tmp_path, "--output", tmp_path / "x.zip")
    assert answer.code == 2
    assert message in answer.error
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize(
    ("task", "item"),
    [
        ("RWSD", {"idx": 0, "label": "true"}),
        ("RUSSE", {"idx": 0, "label": "True"}),
        ("DaNetQA", {"idx": 0, "label": True}),
        ("PARus", {"idx": 0, "label": "1"}),
        ("PARus", {"idx": 0, "label": True}),
        ("RuCoS", {"idx": 0, "label": " "}),
        ("RuCoLA", {"id": 0, "acceptable": "1"}),
        ("MuSeRC", {"idx": 0, "passage": {"questions": [{"idx": 0, "answers": [{"idx": 0, "label": 2}]}]}}),
    ],
)
def test_labels_of_a_neighbouring_task_are_refused(task, item):
    with pytest.raises(BadInput, match=task):
        check_items(task, [item])


def test_a_run_without_a_test_file_cannot_be_submitted(finetune, superglue, tmp_path):
    import shutil

    shutil.copytree(superglue / "RCB", tmp_path / "RCB")
    (tmp_path / "RCB" / "test.jsonl").unlink()
    finetune("run", "RCB", "--model", "majority", "--data-dir", tmp_path, "--output", tmp_path / "out")
    answer = finetune("submit", "--runs", tmp_path / "out", "--output", tmp_path / "x.zip")
    assert answer.code == 2
    assert "the run had no test file" in answer.error


def test_a_seed_that_was_not_run_is_named(finetune, runs, tmp_path):
    answer = finetune("submit", "--runs", runs / "RCB", "--output", tmp_path / "x.zip", "--seed", 7)
    assert answer.code == 2
    assert "seed-7" in answer.error
