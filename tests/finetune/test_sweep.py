"""Several models on several tasks in one go."""

from __future__ import annotations

import json

from tests.finetune.conftest import QUICK


def test_a_sweep_runs_all_goes_on_after_a_failure_and_ends_with_a_table(
    finetune, models, superglue, rucola_files, tmp_path
):
    broken = tmp_path / "broken"
    broken.mkdir()
    words = (
        "sweep", "--model", models["lean_albert"], "--model", "tfidf", "--model", broken,
        "--task", "LiDiRus", "--task", "TERRa", "--task", "RuCoLA",
        "--data-dir", rucola_files, "--data-dir", superglue, "--output", tmp_path / "sweep", "--seeds", 1, *QUICK,
    )  # fmt: skip
    answer = finetune(*words)
    assert answer.code == 1
    assert "3 runs failed: broken/TERRa, broken/RuCoLA, broken/LiDiRus" in answer.error
    for model in ("lean_albert", "tfidf"):
        for task in ("TERRa", "RuCoLA", "LiDiRus"):
            assert (tmp_path / "sweep" / model / task / "summary.json").is_file()
    diagnostic = json.loads((tmp_path / "sweep" / "lean_albert" / "LiDiRus" / "summary.json").read_text())
    assert diagnostic["scores"]["test"]["mcc"]["mean"] is not None
    assert set(diagnostic["baselines"]) == {"majority", "tfidf"}
    ours = [line for line in answer.out.splitlines() if line.split()[1:2] == ["ours"]]
    assert len(ours) == 1  # the diagnostic stands in the row of the model it came from
    assert "human" in answer.out


def test_a_task_whose_files_are_nowhere_is_an_error_before_anything_runs(finetune, superglue, tmp_path):
    answer = finetune(
        "sweep", "--model", "majority", "--task", "TERRa", "--task", "RuCoLA", "--data-dir", superglue,
        "--output", tmp_path / "sweep",
    )  # fmt: skip
    assert answer.code == 2
    assert "RuCoLA: in_domain_train.csv is in none of" in answer.error
    assert not (tmp_path / "sweep").exists()


def test_models_with_the_same_last_name_get_directories_of_their_own():
    from finetune.sweep import _folder_names

    assert _folder_names(["a/latest", "b/latest", "hub/model x"]) == ["latest", "latest-2", "model-x"]
