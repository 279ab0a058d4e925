"""A training that is interrupted goes on, and ends as if it had not been."""

from __future__ import annotations

import json

import pytest
from transformers import TrainerCallback

from finetune import training
from finetune.checkpoints import newest_checkpoint

WORDS = ("--set", "epochs=4", "--set", "max_length=32", "--set", "batch_size=4", "--set", "learning_rate=0.01",
         "--set", "dropout=0.1", "--set", "patience=4")  # fmt: skip


class CtrlC(TrainerCallback):
    """What a person does in the middle of the third epoch."""

    def on_step_end(self, args, state, control, **_):
        if state.epoch > 2.2:
            raise KeyboardInterrupt


def run(finetune, models, superglue, output, *more):
    return finetune(
        "run", "TERRa", "--model", models["lean_albert"], "--data-dir", superglue, "--output", output,
        "--seeds", 1, *WORDS, *more,
    )  # fmt: skip


def test_resumed_equals_uninterrupted(finetune, models, superglue, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        made = training.EarlyStoppingCallback
        # the person is one more callback; the Trainer itself is as it is
        patch.setattr(training, "ProgressReport", lambda *words: _with_ctrl_c(training_report(*words)))
        interrupted = run(finetune, models, superglue, tmp_path / "interrupted")
        assert made is training.EarlyStoppingCallback
    assert interrupted.code == 130
    assert "goes on from its last checkpoint" in interrupted.error
    assert not (tmp_path / "interrupted" / "summary.json").exists()
    # the directory may have been moved meanwhile
    (tmp_path / "interrupted").rename(tmp_path / "moved")
    resumed = run(finetune, models, superglue, tmp_path / "moved", "--json")
    whole = run(finetune, models, superglue, tmp_path / "whole", "--json")
    assert resumed.code == whole.code == 0
    assert resumed.json["scores"] == whole.json["scores"]
    assert resumed.json["seeds"][0]["stages"][0]["steps"] == whole.json["seeds"][0]["stages"][0]["steps"]
    predictions = [
        (tmp_path / name / "seed-0" / "predictions" / "test.jsonl").read_text() for name in ("moved", "whole")
    ]
    assert predictions[0] == predictions[1]
    assert not (tmp_path / "whole" / "seed-0" / "checkpoints").exists()


training_report = training.ProgressReport


def _with_ctrl_c(report):
    report.on_step_end = CtrlC().on_step_end
    return report


def test_half_written_checkpoints_are_passed_over(tmp_path):
    for name, files in (
        ("checkpoint-3", ["trainer_state.json"]),
        ("checkpoint-12", []),
        ("checkpoint-9", ["trainer_state.json"]),
    ):
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")
    assert newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-9")
    assert not (tmp_path / "checkpoint-12").exists()
    assert newest_checkpoint(tmp_path / "nowhere") is None


def test_finished_seeds_are_not_trained_again_and_more_can_be_added(finetune, models, superglue, tmp_path):
    first = finetune(
        "run", "RCB", "--model", models["lean_albert"], "--data-dir", superglue, "--output", tmp_path / "out",
        "--seeds", 1, "--set", "epochs=1", "--set", "max_length=24",
    )  # fmt: skip
    assert first.code == 0
    before = json.loads((tmp_path / "out" / "seed-0" / "result.json").read_text())
    more = finetune(
        "run", "RCB", "--model", models["lean_albert"], "--data-dir", superglue, "--output", tmp_path / "out",
        "--seeds", 2, "--set", "epochs=1", "--set", "max_length=24", "--json",
    )  # fmt: skip
    assert "RCB seed 0: finished earlier" in more.err
    assert more.json["seeds"][0] == before
    assert len(more.json["seeds"]) == 2
    assert more.json["scores"]["validation"]["f1"]["std"] is not None


@pytest.mark.parametrize("change", [("--set", "epochs=2"), ("--set", "learning_rate=0.5")])
def test_the_output_of_another_run_is_refused(finetune, superglue, tmp_path, change):
    words = ("run", "TERRa", "--model", "majority", "--data-dir", superglue, "--output", tmp_path / "out")
    assert finetune(*words).code == 0
    answer = finetune(*words, *change)
    assert answer.code == 2
    assert "holds another run (settings: " in answer.error
