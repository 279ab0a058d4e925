"""`finetune run` end to end: every task, every kind of encoder, and what stands on disk afterwards."""

from __future__ import annotations

import json

import pytest

from tests.finetune.conftest import QUICK
from tests.finetune.layouts import MAKERS


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


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
@pytest.mark.parametrize("task", ["RUSSE", "PARus", "RuCoS"])
def test_other_encoders_work_with_every_kind_of_head(
    finetune, models, superglue, tmp_path, architecture, task
):
    answer = finetune(
        "run", task, "--model", models[architecture], "--data-dir", superglue, "--output", tmp_path / "out",
        "--seeds", 1, *QUICK,
    )  # fmt: skip
    assert answer.code == 0, answer.err
