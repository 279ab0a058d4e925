"""Whatever is wrong is one line that names it, with exit code 2, before anything is trained or overwritten."""

from __future__ import annotations

import json
import shutil

import pytest

from tests.finetune.conftest import QUICK
from tests.finetune.layouts import entailment, write_jsonl


@pytest.fixture
def attempt(finetune, models, superglue, tmp_path):
    def call(*more, task="TERRa", model=None, data=None, output=None):
        return finetune(
            "run", task, "--model", model or models["lean_albert"], "--data-dir", data or superglue,
            "--output", output or tmp_path / "out", "--seeds", 1, *QUICK, *more,
        )  # fmt: skip

    return call


def test_unknown_task(attempt):
    answer = attempt(task="RTE")
    assert answer.code == 2
    assert "no task 'RTE'" in answer.error


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epoch=3", "--set epoch: no such setting of TERRa; there are epochs, learning_rate"),
        ("epochs", "--set epochs: key=value is expected"),
        ("epochs=-1", "--set epochs: Input should be greater than 0"),
        ("batch_size=many", "--set batch_size: Input should be a valid integer"),
        ("optimizer=sgd", "--set optimizer: Input should be 'adamw' or 'adamw_8bit'"),
        ("text_field=a", "--set text_field: no such setting of TERRa"),
    ],
)
def test_impossible_settings(attempt, assignment, message):
    answer = attempt("--set", assignment)
    assert answer.code == 2
    assert message in answer.error


def test_half_precision_without_a_gpu(attempt, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    answer = attempt("--set", "precision=fp16")
    assert answer.code == 2
    assert "precision=fp16 needs a GPU" in answer.error


def test_data_that_is_not_there(attempt, tmp_path):
    answer = attempt(data=tmp_path / "nowhere")
    assert answer.code == 2
    assert "--data-dir" in answer.error
    assert "give the folder of TERRa's files" in answer.error


def test_an_operating_point_without_its_class(attempt):
    answer = attempt("--set", "at_precision=0.9", task="classification")
    assert answer.code == 2
    assert answer.error == "error: --set positive_label and at_precision go together"


def test_a_task_folder_of_another_task(attempt, superglue):
    answer = attempt(task="DaNetQA", data=superglue / "TERRa")
    assert answer.code == 2
    assert (
        "train.jsonl, line 1: field 'question' is missing (found: premise, hypothesis, label, idx)"
        in answer.error
    )


def test_a_model_that_is_not_there(attempt, tmp_path):
    answer = attempt(model=tmp_path / "nowhere")
    assert answer.code == 2
    assert "cannot be loaded" in answer.error


def test_a_directory_that_is_no_model(attempt, superglue):
    answer = attempt(model=superglue)
    assert answer.code == 2
    assert "no config.json there" in answer.error


@pytest.fixture
def broken_model(models, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(models["lean_albert"], folder)
    return folder


def test_a_model_without_tokenizer(attempt, broken_model):
    for path in broken_model.glob("*token*"):
        path.unlink()
    answer = attempt(model=broken_model)
    assert answer.code == 2
    assert "no tokenizer there" in answer.error


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_model_with_a_torn_file(attempt, broken_model, name):
    path = broken_model / name
    path.write_bytes(path.read_bytes()[:100])
    answer = attempt(model=broken_model)
    assert answer.code == 2
    assert "cannot be loaded" in answer.error


def test_a_tokenizer_of_another_model(attempt, broken_model, models):
    config = json.loads((broken_model / "config.json").read_text())
    (broken_model / "model.safetensors").unlink()
    from model import LeanAlbertConfig, LeanAlbertForPreTraining

    LeanAlbertForPreTraining(LeanAlbertConfig(**config | {"vocab_size": 64})).save_pretrained(broken_model)
    answer = attempt(model=broken_model)
    assert answer.code == 2
    assert "they do not belong together" in answer.error


def test_an_output_that_holds_something_else(attempt, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("years of work")
    answer = attempt()
    assert answer.code == 2
    assert "is not empty and holds no run" in answer.error
    assert (tmp_path / "out" / "thesis.txt").read_text() == "years of work"


def test_an_output_that_is_a_file(attempt, tmp_path):
    (tmp_path / "file").write_text("")
    answer = attempt(output=tmp_path / "file")
    assert answer.code == 2
    assert "is a file" in answer.error


def test_a_damaged_record_of_the_run(attempt, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text('{"task": ')
    answer = attempt()
    assert answer.code == 2
    assert "run.json is damaged" in answer.error


def test_training_that_diverges_says_so(attempt):
    answer = attempt("--set", "learning_rate=1e30")
    assert answer.code == 1
    assert "training diverged; try a lower learning_rate" in answer.error


def test_lidirus_needs_a_model_of_terra(attempt):
    answer = attempt(task="LiDiRus")
    assert answer.code == 2
    assert "run `finetune run TERRa` first" in answer.error


def test_one_training_example_is_too_few_to_hold_out(attempt, tmp_path):
    write_jsonl(tmp_path / "data" / "train.jsonl", [{"text": "а", "label": "x"}])
    answer = attempt(task="classification", data=tmp_path / "data")
    assert answer.code == 2
    assert "all of the training set has the label 'x'" in answer.error


def test_empty_texts_are_data_like_any_other(attempt, tmp_path):
    rows = [entailment(number) | {"premise": "", "hypothesis": " "} for number in range(4)]
    for name in ("train", "val", "test"):
        write_jsonl(tmp_path / "data" / f"{name}.jsonl", rows)
    assert attempt(data=tmp_path / "data").code == 0


@pytest.mark.parametrize(
    "words", [(), ("run",), ("run", "TERRa"), ("report",), ("submit", "--runs"), ("bake", "a", "cake")]
)
def test_a_wrong_command_line(finetune, words):
    answer = finetune(*words)
    assert answer.code == 2
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("command", ["report", "submit"])
def test_a_directory_without_runs(finetune, tmp_path, command):
    answer = finetune(command, "--runs", tmp_path, "--output", tmp_path / "out.zip")
    assert answer.code == 2
    assert "no summary.json of a finished" in answer.error
