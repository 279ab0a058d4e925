"""Checkpoints: all or nothing, whatever happens while one is written."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from coordinator.checkpoints import CheckpointStore, find_damage, load_checkpoint
from coordinator.last_state import write_last_state
from coordinator.state_keeper import resume
from data_prep.tokenizer import load_tokenizer
from swarm.errors import OperationFailed
from swarm.spec import RunSpec
from swarm.training_state import TrainingState, build_model

SPEC = RunSpec(
    name="checkpoints",
    model={
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "embedding_size": 16,
    },
)
WRITER = Path(__file__).with_name("checkpoint_writer.py")


@pytest.fixture
def tokenizer(prepared_data) -> PreTrainedTokenizerFast:
    return load_tokenizer(prepared_data / "tokenizer")


@pytest.fixture
def state(tokenizer) -> TrainingState:
    return new_state(tokenizer)


@pytest.fixture
def store(tmp_path) -> CheckpointStore:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return CheckpointStore(folder, SPEC.run_id, keep=3)


def new_state(tokenizer) -> TrainingState:
    return TrainingState(
        SPEC, build_model(SPEC, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    )


def advance(state: TrainingState, steps: int = 1) -> None:
    for _ in range(steps):
        state.apply_gradients([torch.randn_like(parameter) for parameter in state.parameters], "")


def write(store: CheckpointStore, state: TrainingState, tokenizer, heldout_loss: float = 1.0):
    return store.write(state, tokenizer, train_loss=2.0, heldout_loss=heldout_loss)


def test_a_state_comes_back_exactly(tmp_path, state, tokenizer):
    store = CheckpointStore(tmp_path, SPEC.run_id, keep=3)
    advance(state, 3)
    write(store, state, tokenizer)
    again = new_state(tokenizer)
    load_checkpoint(store.newest_intact(), again)
    assert again.step == 3
    for own, other in zip(again.snapshot().tensors, state.snapshot().tensors, strict=True):
        assert torch.equal(own, other)


def test_training_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(tmp_path, state, tokenizer):
    store = CheckpointStore(tmp_path, SPEC.run_id, keep=3)
    advance(state, 2)
    write(store, state, tokenizer)
    resumed = new_state(tokenizer)
    load_checkpoint(store.newest_intact(), resumed)
    for continued in (state, resumed):
        torch.manual_seed(5)
        advance(continued, 2)
    for own, other in zip(resumed.snapshot().tensors, state.snapshot().tensors, strict=True):
        assert torch.equal(own, other)


def test_retention_keeps_the_first_the_best_and_the_newest(tmp_path, state, tokenizer):
    store = CheckpointStore(tmp_path, SPEC.run_id, keep=2)
    for loss in (9.0, 5.0, 2.0, 6.0, 7.0, 8.0):
        write(store, state, tokenizer, heldout_loss=loss)
        advance(state)
    assert [item.step for item in store.list()] == [0, 2, 4, 5]
    assert (tmp_path / "latest").resolve().name == "step-00000005"


def test_retention_keeps_multiples_of_a_number_of_steps(tmp_path, state, tokenizer):
    store = CheckpointStore(tmp_path, SPEC.run_id, keep=1, keep_multiples_of=3)
    for _ in range(8):
        write(store, state, tokenizer, heldout_loss=1.0 + abs(4 - state.step))
        advance(state)
    assert [item.step for item in store.list()] == [0, 3, 4, 6, 7]


def test_the_same_step_again_never_leaves_latest_broken(tmp_path, state, tokenizer):
    store = CheckpointStore(tmp_path, SPEC.run_id, keep=3)
    write(store, state, tokenizer)
    advance(state)
    write(store, state, tokenizer)
    state.branch = "ab"
    assert write(store, state, tokenizer).branch == "ab"
    assert store.newest_intact().branch == "ab"
    assert (tmp_path / "latest").resolve().name == "step-00000001"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_kill_between_setting_aside_and_replacing_loses_nothing(tmp_path, state, tokenizer, monkeypatch):
    store = CheckpointStore(tmp_path, SPEC.run_id, keep=3)
    write(store, state, tokenizer)
    replace = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(source).name.startswith(".writing-"):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write(store, state, tokenizer)
    monkeypatch.undo()
    assert CheckpointStore(tmp_path, SPEC.run_id, keep=3).newest_intact().step == 0
    assert find_damage(tmp_path / "latest") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000000"]


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, state, tokenizer, damage):
    store = CheckpointStore(tmp_path, SPEC.run_id, keep=3)
    write(store, state, tokenizer)
    advance(state)
    newest = write(store, state, tokenizer).path / "optimizer.safetensors"
    content = bytearray(newest.read_bytes())
    if damage == "truncate":
        newest.write_bytes(content[:-1])
    elif damage == "flip":
        content[-1] ^= 1
        newest.write_bytes(content)
    else:
        newest.unlink()
    assert find_damage(newest.parent) is not None
    assert store.newest_intact().step == 0
    assert (tmp_path / "latest").resolve().name == "step-00000000"


def test_a_full_disk_leaves_the_last_checkpoint_and_no_rubbish(tmp_path, state, tokenizer, monkeypatch):
    store = CheckpointStore(tmp_path, SPEC.run_id, keep=3)
    write(store, state, tokenizer)
    advance(state)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OperationFailed, match="No space left on device"):
        write(store, state, tokenizer)
    monkeypatch.undo()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "step-00000000"]
    assert find_damage(tmp_path / "latest") is None


@pytest.mark.parametrize("kills", [6, pytest.param(100, marks=pytest.mark.heavy)])
def test_kills_in_mid_write_never_leave_a_broken_latest(tmp_path, prepared_data, kills):
    """A writer is killed with -9 at random moments of its work; `latest` is intact each time."""
    seed = random.randrange(10**6)
    rng = random.Random(seed)
    arguments = [sys.executable, str(WRITER), str(tmp_path), str(prepared_data / "tokenizer")]
    writer = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    try:
        kill_writing_child(writer, until=lambda: (tmp_path / "latest").exists())
        newest = newest_intact(tmp_path, newest=1, case=f"seed {seed}, first")
        for kill in range(kills):
            started = time.monotonic()
            kill_writing_child(writer, until=lambda at=newest + 1: newest_step(tmp_path) >= at)
            duration = time.monotonic() - started
            newest = newest_intact(tmp_path, newest, case=f"seed {seed}, after a write")
            moment = time.monotonic() + rng.uniform(0, 1.5 * duration)
            kill_writing_child(writer, until=lambda at=moment: time.monotonic() >= at)
            newest = newest_intact(tmp_path, newest, case=f"seed {seed}, kill {kill}")
    finally:
        writer.kill()
        writer.wait()


def kill_writing_child(writer: subprocess.Popen[str], until: Callable[[], bool]) -> None:
    """Let the writer's next child write until the condition holds, then kill it."""
    assert writer.stdout is not None
    child = int(json.loads(writer.stdout.readline())["pid"])
    deadline = time.monotonic() + 300
    while not until():
        assert time.monotonic() < deadline, "the writer does not get on"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)


def newest_step(directory: Path) -> int:
    return int((directory / "latest").resolve().name.removeprefix("step-"))


def newest_intact(directory: Path, newest: int, case: str) -> int:
    """The newest intact step; fails if `latest` is broken or a finished checkpoint was lost."""
    assert find_damage(directory / "latest") is None, case
    found = CheckpointStore(directory, SPEC.run_id, keep=3).newest_intact()
    assert found is not None, case
    assert found.step >= newest, case
    return found.step


def test_the_last_state_is_resumed_when_it_is_newer_than_the_newest_checkpoint(
    state, tokenizer, store, tmp_path
):
    path = tmp_path / "last_state.safetensors"
    advance(state, 3)
    checkpoint = write(store, state, tokenizer)
    advance(state, 2)
    write_last_state(path, state.snapshot(), SPEC.run_id)
    again = new_state(tokenizer)
    assert resume(again, store, path).checkpoint == checkpoint
    assert again.step == 5
    for own, other in zip(again.snapshot().tensors, state.snapshot().tensors, strict=True):
        assert torch.equal(own, other)

    advance(state, 2)
    newest = write(store, state, tokenizer)
    older = new_state(tokenizer)
    assert resume(older, store, path).checkpoint == newest
    assert older.step == 7


@pytest.mark.parametrize("damage", ["cut off", "one bit", "another run", "not there"])
def test_a_last_state_that_cannot_be_trusted_is_passed_over(state, tokenizer, store, tmp_path, damage):
    path = tmp_path / "last_state.safetensors"
    write(store, state, tokenizer)
    advance(state, 2)
    if damage != "not there":
        write_last_state(path, state.snapshot(), "other-run" if damage == "another run" else SPEC.run_id)
        content = bytearray(path.read_bytes())
        if damage == "cut off":
            content = content[: len(content) // 2]
        elif damage == "one bit":
            content[-100] ^= 1
        path.write_bytes(content)
    again = new_state(tokenizer)
    resume(again, store, path)
    assert again.step == 0
