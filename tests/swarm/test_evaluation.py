"""Scores on the held-out set: what is counted, by which source, and one token at a time."""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from coordinator.checkpoints import CheckpointStore
from data_prep.heldout import load_heldout, load_heldout_sources, save_heldout
from data_prep.tokenizer import load_tokenizer
from swarm.evaluation import HeldoutEvaluator, pseudo_perplexity
from tests.coordinator.test_checkpoints import SPEC, advance, new_state
from tests.scenarios.swarm_under_test import ROOT


@pytest.fixture(scope="module")
def tokenizer(prepared_data):
    return load_tokenizer(prepared_data / "tokenizer")


@pytest.fixture
def state(tokenizer):
    state = new_state(tokenizer)
    advance(state, 3)
    state.model.eval()
    return state


@pytest.fixture
def two_sources(prepared_data, tmp_path):
    """The held-out rows, every third one of them named as of another source."""
    rows = load_heldout(prepared_data / "heldout.safetensors")
    names = ["b" if number % 3 == 0 else "a" for number in range(len(rows["labels"]))]
    path = tmp_path / "heldout.safetensors"
    save_heldout(path, *(rows[key].numpy() for key in ("input_ids", "attention_mask", "labels")), names)
    return path, names


def test_loss_and_accuracy_are_means_over_masked_tokens_in_all_and_by_source(state, two_sources):
    path, names = two_sources
    rows = load_heldout(path)
    with torch.inference_mode():
        scores = state.model(**rows, masked_positions_only=False).prediction_logits
    masked = rows["labels"] != -100
    losses = cross_entropy(scores[masked], rows["labels"][masked], reduction="none")
    right = (scores.argmax(-1) == rows["labels"])[masked].double()
    found = HeldoutEvaluator(path).evaluate(state)
    assert found.loss == pytest.approx(float(losses.mean()), rel=1e-4)
    assert found.accuracy == pytest.approx(float(right.mean()))
    assert found.tokens == int(masked.sum())
    of_b = torch.tensor([name == "b" for name in names])[:, None].expand_as(masked)[masked]
    assert found.by_source["b"].loss == pytest.approx(float(losses[of_b].mean()), rel=1e-4)
    assert found.by_source["a"].tokens + found.by_source["b"].tokens == found.tokens


def test_a_held_out_set_that_does_not_know_its_sources_is_scored_as_a_whole(state, two_sources, tmp_path):
    rows = load_heldout(two_sources[0])
    path = tmp_path / "old.safetensors"
    save_heldout(path, *(rows[key].numpy() for key in ("input_ids", "attention_mask", "labels")))
    assert load_heldout_sources(path) is None
    assert HeldoutEvaluator(path).evaluate(state).by_source == {}


def test_a_prepared_corpus_names_the_source_of_every_row(prepared_data):
    path = prepared_data / "heldout.safetensors"
    assert load_heldout_sources(path) == ["made-up"] * len(load_heldout(path)["labels"])


def test_the_pseudo_perplexity_masks_each_token_by_itself(state, tokenizer, prepared_data):
    path = prepared_data / "heldout.safetensors"
    special = frozenset((tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id))
    found = pseudo_perplexity(state.model, path, tokenizer.mask_token_id, special, rows=1)
    rows = load_heldout(path)
    text = torch.where(rows["labels"][0] == -100, rows["input_ids"][0], rows["labels"][0])
    losses = []
    for place, token in enumerate(text.tolist()):
        if token in special:
            continue
        hidden = text.clone()[None]
        hidden[0, place] = tokenizer.mask_token_id
        with torch.inference_mode():
            scores = state.model(
                input_ids=hidden, attention_mask=(text != tokenizer.pad_token_id).long()[None]
            )
        losses.append(float(cross_entropy(scores.prediction_logits[0, place][None], torch.tensor([token]))))
    assert found.tokens == len(losses)
    assert found.loss == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.heavy
def test_the_command_scores_a_checkpoint_again(state, tokenizer, prepared_data, make_spec, tmp_path):
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints").mkdir(parents=True)
    (run_dir / "bundle").symlink_to(prepared_data)
    make_spec().rename(run_dir / "run.toml")
    CheckpointStore(run_dir / "checkpoints", SPEC.run_id, keep=1).write(
        state, tokenizer, train_loss=None, heldout_loss=1.0
    )
    program = "from coordinator.cli import main; main()"
    arguments = ["evaluate", "--run-dir", str(run_dir), "--pseudo-perplexity", "--rows", "1", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    expected = HeldoutEvaluator(prepared_data / "heldout.safetensors").evaluate(state)
    assert found["loss"] == pytest.approx(expected.loss, rel=1e-4)
    assert set(found["by_source"]) == {"made-up"}
    assert math.isfinite(found["pseudo_loss"])
