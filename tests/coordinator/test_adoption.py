"""`coordinator run --resume-from`: going on elsewhere with what a checkpoint holds, or beginning with other weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from coordinator.adoption import adopt_checkpoint, copy_tokenizer_of_checkpoint
from coordinator.checkpoints import MANIFEST, CheckpointStore, load_checkpoint
from coordinator.run_directory import RunDirectory
from coordinator.settings_desk import SettingsDesk
from data_prep.tokenizer import load_tokenizer
from swarm.errors import BadInput
from swarm.settings import RunSettings, SettingsBook, SettingsEntry, SettingsPlan
from swarm.spec import RunSpec
from swarm.training_state import TrainingState, build_model
from tests.coordinator.test_checkpoints import SPEC, advance, new_state

CHANGED = RunSettings.of(SPEC).model_copy(update={"target_batch_size": 96, "paused": True})
PLAN = SettingsPlan(version=4, issuer="12D3KooWlost", entries=(SettingsEntry(from_step=2, settings=CHANGED),))
OTHER = SPEC.model_copy(update={"name": "news"})


@pytest.fixture(scope="module")
def source(prepared_data, tmp_path_factory) -> Path:
    """A checkpoint of step 3 whose settings were changed."""
    folder = tmp_path_factory.mktemp("source")
    tokenizer = load_tokenizer(prepared_data / "tokenizer")
    state = new_state(tokenizer)
    advance(state, 3)
    more = {"settings": PLAN.model_dump(mode="json")}
    CheckpointStore(folder, SPEC.run_id, keep=3).write(
        state, tokenizer, train_loss=None, heldout_loss=2.0, more=more
    )
    return folder / "step-00000003"


@pytest.fixture
def directory(tmp_path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.checkpoints_path.mkdir(parents=True)
    return directory


def test_settings_that_were_changed_hold_again_elsewhere(source, directory):
    said: list[str] = []
    adopt_checkpoint(source, directory, SPEC, said.append)
    book = SettingsBook(SPEC)
    SettingsDesk(book, None, directory.settings_path, lambda: None, lambda event: None).load()
    assert book.changed == PLAN
    assert book.at(2) == CHANGED
    assert "target_batch_size = 96, paused = True" in said[-1]


def test_settings_of_the_run_directory_are_newer_than_a_checkpoints(source, directory):
    directory.settings_path.write_text("kept")
    adopt_checkpoint(source, directory, SPEC, lambda words: None)
    assert directory.settings_path.read_text() == "kept"


def test_settings_that_cannot_be_read_are_told_and_not_forgotten(source, directory, tmp_path):
    broken = shutil.copytree(source, tmp_path / "broken")
    facts = json.loads((broken / MANIFEST).read_bytes())
    facts["settings"]["entries"][0]["settings"]["target_batch_size"] = -1
    (broken / MANIFEST).write_text(json.dumps(facts))
    with pytest.raises(BadInput, match=r"the settings in .* cannot be read"):
        adopt_checkpoint(broken, directory, SPEC, lambda words: None)


@pytest.mark.parametrize("kind", ["another run's checkpoint", "a folder of them", "plain weights"])
def test_a_new_run_begins_with_weights_from_elsewhere(source, directory, tmp_path, prepared_data, kind):
    given = shutil.copytree(source, tmp_path / "given" / "step-00000003")
    if kind == "plain weights":
        (given / MANIFEST).unlink()
        (given / "optimizer.safetensors").unlink()
    said: list[str] = []
    adopt_checkpoint(given.parent if kind == "a folder of them" else given, directory, OTHER, said.append)
    assert "begins with the weights" in said[-1]
    assert not directory.settings_path.exists()
    first = CheckpointStore.of(directory.checkpoints_path, OTHER).newest_intact()
    assert (first.step, first.run_id) == (1, OTHER.run_id)
    begun, trained = fresh_state(OTHER, prepared_data), fresh_state(SPEC, prepared_data)
    load_checkpoint(first, begun)
    load_checkpoint(CheckpointStore(source.parent, SPEC.run_id, keep=3).newest_intact(), trained)
    for own, other in zip(begun.parameters, trained.parameters, strict=True):
        assert torch.equal(own, other)
    assert not any(moment.any() for name, moment in begun.named_moments().items() if "exp_avg" in name)
    (tmp_path / "tokenizer").mkdir()
    assert copy_tokenizer_of_checkpoint(directory, OTHER, tmp_path / "tokenizer")
    assert (
        load_tokenizer(tmp_path / "tokenizer").get_vocab()
        == load_tokenizer(prepared_data / "tokenizer").get_vocab()
    )


def test_another_model_is_told_with_what_to_set(source, directory, tmp_path):
    wide = RunSpec(name="wide", model={**SPEC.model.model_dump(), "num_hidden_layers": 4})
    with pytest.raises(
        BadInput, match=r"num_hidden_layers 2, the run.s has 4: set model\.num_hidden_layers = 2"
    ):
        adopt_checkpoint(source, directory, wide, lambda words: None)
    bert = shutil.copytree(source, tmp_path / "bert")
    (bert / MANIFEST).unlink()
    (bert / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(BadInput, match="is a bert, but a run trains a lean_albert"):
        adopt_checkpoint(bert, directory, OTHER, lambda words: None)
    (bert / "tokenizer.json").unlink()
    with pytest.raises(BadInput, match="no tokenizer that can be used"):
        adopt_checkpoint(bert, directory, OTHER, lambda words: None)
    assert not list(directory.checkpoints_path.iterdir())


def test_text_prepared_with_another_tokenizer_is_not_used(source, directory):
    prepared = directory.bundle_path / "tokenizer"
    prepared.mkdir(parents=True)
    for file in source.glob("*token*.json"):
        shutil.copyfile(file, prepared / file.name)
    facts = json.loads((prepared / "tokenizer.json").read_bytes())
    facts["model"]["vocab"][-1][0] = "another"
    (prepared / "tokenizer.json").write_text(json.dumps(facts))
    with pytest.raises(BadInput, match="prepared with another tokenizer"):
        adopt_checkpoint(source, directory, OTHER, lambda words: None)
    assert not list(directory.checkpoints_path.iterdir())


@pytest.mark.parametrize("damage", ["cut off", "of another shape"])
def test_weights_that_cannot_be_used_are_told(source, directory, tmp_path, damage):
    broken = shutil.copytree(source, tmp_path / "broken")
    (broken / MANIFEST).unlink()
    if damage == "cut off":
        weights = (broken / "model.safetensors").read_bytes()
        (broken / "model.safetensors").write_bytes(weights[:-10])
    else:
        shutil.copyfile(source / "optimizer.safetensors", broken / "model.safetensors")
    with pytest.raises(BadInput, match="do not fit the spec's model"):
        adopt_checkpoint(broken, directory, OTHER, lambda words: None)


def fresh_state(spec: RunSpec, prepared_data: Path) -> TrainingState:
    tokenizer = load_tokenizer(prepared_data / "tokenizer")
    return TrainingState(
        spec, build_model(spec, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    )
