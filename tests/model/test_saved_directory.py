"""A saved directory loads where this project is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch
from safetensors import safe_open
from transformers.dynamic_module_utils import get_relative_imports

import model
from model import LeanAlbertForMaskedLM, LeanAlbertForPreTraining

READER = """
import sys, torch
from transformers import AutoModelForMaskedLM, AutoModelForPreTraining
directory, second = sys.argv[1:]
model = AutoModelForPreTraining.from_pretrained(directory, trust_remote_code=True)
model.save_pretrained(second)
again = AutoModelForMaskedLM.from_pretrained(second, trust_remote_code=True)
assert "model" not in sys.modules, "the project must not be importable here"
ids = torch.arange(4, 16)[None]
with torch.no_grad():
    output = model(ids)
    torch.save([output.prediction_logits, output.sop_logits, again(ids).logits], second + "/scores.pt")
"""


def test_loads_with_trust_remote_code_where_the_project_is_not_installed(small_config, tmp_path):
    pretrained = LeanAlbertForPreTraining(small_config()).eval()
    pretrained.save_pretrained(tmp_path / "first")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", "-c", READER]
    result = subprocess.run(
        [*command, str(tmp_path / "first"), str(tmp_path / "second")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    scores, order, scores_again = torch.load(tmp_path / "second" / "scores.pt", weights_only=True)
    with torch.no_grad():
        expected = pretrained(torch.arange(4, 16)[None])
    torch.testing.assert_close(scores, expected.prediction_logits)
    torch.testing.assert_close(order, expected.sop_logits)
    assert torch.equal(scores_again, scores)


def test_tied_and_shared_matrices_are_saved_once(small_config, tmp_path):
    LeanAlbertForMaskedLM(small_config(num_hidden_groups=2, share_large_matrices=True)).save_pretrained(
        tmp_path
    )
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        keys = list(file.keys())
    assert "predictions.decoder.weight" not in keys
    assert sum(key.endswith("dense_qkv.weight") for key in keys) == 1


def test_the_model_file_names_every_other_file_itself():
    # transformers before 5 does not follow imports any further when it loads a local directory
    directory = Path(model.__file__).parent
    named = set(get_relative_imports(directory / "modeling_lean_albert.py"))
    others = {path.stem for path in directory.glob("*_lean_albert.py")} - {"modeling_lean_albert"}
    assert named == others
