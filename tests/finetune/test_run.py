"""`finetune run` end to end: every task, every kind of encoder, and what stands on disk afterwards."""

from __future__ import annotations

import json

import pytest

from tests.finetune.conftest import QUICK
from tests.finetune.layouts import MAKERS, write_jsonl


@pytest.mark.parametrize("task", MAKERS)
def test_every_superglue_task_runs_from_files_to_summary(finetune, models, superglue, tmp_path, task):
    answer = finetune(
        "run", task, "--model", models["lean_albert"], "--data-dir", superglue, "--output", tmp_path / "out",
        "--seeds", 1, "--json", *QUICK,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == answer.json
    assert set(summary["baselines"]) == {"majority", "tfidf"}
    for name in summary["metrics"]:
        assert 0 <= summary["scores"]["validation"][name]["mean"] <= 1
    for split in ("validation", "test"):
        assert (tmp_path / "out" / "seed-0" / "predictions" / f"{split}.jsonl").is_file()
    assert (tmp_path / "out" / "seed-0" / "model" / "config.json").is_file()


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("bert", "PARus"),
        ("roberta", "RUSSE"),
        pytest.param("bert", "RUSSE", marks=pytest.mark.heavy),
        pytest.param("bert", "RuCoS", marks=pytest.mark.heavy),
        pytest.param("roberta", "PARus", marks=pytest.mark.heavy),
        pytest.param("roberta", "RuCoS", marks=pytest.mark.heavy),
    ],
)
def test_other_encoders_work_with_every_kind_of_head(
    finetune, models, superglue, tmp_path, architecture, task
):
    answer = finetune(
        "run", task, "--model", models[architecture], "--data-dir", superglue, "--output", tmp_path / "out",
        "--seeds", 1, *QUICK,
    )  # fmt: skip
    assert answer.code == 0, answer.err


def test_the_list_of_tasks_names_their_files(finetune):
    answer = finetune("tasks", "--json")
    assert answer.json["RuCoLA"]["files"]["out_of_domain"] == ["out_of_domain_dev.csv"]
    assert answer.json["MuSeRC"]["metrics"] == ["f1a", "em"]
    assert "LiDiRus.jsonl" in finetune("tasks").out


def test_settings_reach_the_training(finetune, models, rucola_files, tmp_path):
    answer = finetune(
        "run", "RuCoLA", "--model", models["lean_albert"], "--data-dir", rucola_files, "--output",
        tmp_path / "out", "--seeds", 1, "--json", *QUICK, "--set", "gradient_accumulation=2", "--set", "dropout=0.2",
        "--set", "gradient_checkpointing=true", "--set", "evaluate_every=1", "--set", "max_train_examples=10",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (stage,) = answer.json["seeds"][0]["stages"]
    assert stage["steps"] == 2  # 10 examples in batches of 4, two batches to a step
    config = json.loads((tmp_path / "out" / "seed-0" / "model" / "config.json").read_text())
    assert config["hidden_dropout_prob"] == config["classifier_dropout_prob"] == 0.2
    assert set(answer.json["scores"]) >= {"validation", "out_of_domain", "overall", "Syntax"}


@pytest.mark.heavy
def test_the_8_bit_optimizer_trains(finetune, models, superglue, tmp_path):
    answer = finetune(
        "run", "TERRa", "--model", models["lean_albert"], "--data-dir", superglue, "--output", tmp_path / "out",
        "--seeds", 1, *QUICK, "--set", "optimizer=adamw_8bit",
    )  # fmt: skip
    assert answer.code == 0, answer.err


def test_the_same_seed_gives_the_same_scores(finetune, models, superglue, tmp_path):
    summaries = []
    for name in ("first", "second"):
        answer = finetune(
            "run", "DaNetQA", "--model", models["lean_albert"], "--data-dir", superglue, "--output", tmp_path / name,
            "--seeds", 1, "--json", *QUICK,
        )  # fmt: skip
        summaries.append(answer.json)
    assert (
        summaries[0]["seeds"][0]["stages"][0]["train_loss"]
        == summaries[1]["seeds"][0]["stages"][0]["train_loss"]
    )
    assert summaries[0]["scores"] == summaries[1]["scores"]


@pytest.mark.parametrize("task", ["TERRa", "MuSeRC"])
def test_the_metric_that_chooses_is_the_metric_of_the_chosen_model(finetune, models, tmp_path, task):
    # texts of many lengths, labels that go with them: any mix-up of the order shows
    rows = [
        {"premise": "да " * (1 + 7 * number % 23), "hypothesis": "нет", "idx": number}
        | {"label": "entailment" if 7 * number % 23 > 11 else "not_entailment"}
        for number in range(46)
    ]
    if task == "MuSeRC":
        rows = [
            {
                "idx": row["idx"],
                "passage": {
                    "text": row["premise"],
                    "questions": [
                        {
                            "idx": row["idx"],
                            "question": "да?",
                            "answers": [
                                {"idx": 0, "text": "нет", "label": int(row["label"] == "entailment")}
                            ],
                        }
                    ],
                },
            }
            for row in rows
        ]
    for name in ("train", "val"):
        write_jsonl(tmp_path / "data" / f"{name}.jsonl", rows)
    answer = finetune(
        "run", task, "--model", models["lean_albert"], "--data-dir", tmp_path / "data", "--output", tmp_path / "out",
        "--seeds", 1, "--json", *QUICK, "--set", "epochs=4", "--set", "learning_rate=0.005",
        "--set", "evaluation_batch_size=4",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    scores = answer.json["seeds"][0]["scores"]["validation"]
    assert scores[answer.json["metric"]] == answer.json["seeds"][0]["stages"][0]["best_metric"]
    assert scores[answer.json["metric"]] > 0.7
