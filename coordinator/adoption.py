"""Continuing a run from checkpoints alone, on a machine that has nothing else of it.

The weights fit only the tokenizer they were trained with, so that one is taken from the checkpoint as well. The new
coordinator has an identity of its own: its peers join by its own `peer join` line.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from coordinator.checkpoints import (
    Checkpoint,
    CheckpointStore,
    checkpoint_name,
    find_damage,
    read_checkpoint,
)
from coordinator.run_directory import RunDirectory
from swarm.errors import BadInput
from swarm.spec import RunSpec

STAGING = ".adopting"
# beside the model's config, which a tokenizer's folder must not have, or transformers would run the model's code
TOKENIZER_FILES = "*token*.json"


def adopt_checkpoint(
    source: Path, directory: RunDirectory, spec: RunSpec, say: Callable[[str], None]
) -> Path | None:
    """Copy the checkpoint in or under `source` into a run directory that has none yet.

    :returns: a folder with its tokenizer, for the run bundle; None if the run directory has checkpoints of its own,
        from which it goes on
    :raises BadInput: there is no intact checkpoint of this run
    """
    store = CheckpointStore(directory.checkpoints_path, spec.run_id, spec.checkpoints.keep)
    if store.newest_intact() is not None:
        say(f"{directory.path} has checkpoints of its own; going on from the newest of those")
        return None
    found = find_checkpoint(source, spec)
    staging = directory.path / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(found.path, staging)
    os.replace(staging, directory.checkpoints_path / checkpoint_name(found.step))
    tokenizer_path = directory.path / f"{STAGING}-tokenizer"
    shutil.rmtree(tokenizer_path, ignore_errors=True)
    tokenizer_path.mkdir()
    for file in found.path.glob(TOKENIZER_FILES):
        shutil.copy(file, tokenizer_path)
    say(f"adopted {found.path} at step {found.step}")
    return tokenizer_path


def find_checkpoint(source: Path, spec: RunSpec) -> Checkpoint:
    """The checkpoint that `source` is, or the newest intact one in it; raises `BadInput`."""
    if not source.is_dir():
        raise BadInput(
            f"--resume-from {source} is not a directory: give a checkpoint, or a folder of checkpoints"
        )
    folders = [source, *(path for path in source.iterdir() if path.is_dir() and not path.is_symlink())]
    candidates = [read_checkpoint(path) for path in folders]
    found = sorted(
        (item for item in candidates if item is not None), key=lambda item: item.step, reverse=True
    )
    if not found:
        raise BadInput(
            f"--resume-from {source} holds no checkpoint: it should have a manifest.json, or step-… folders"
        )
    damages = {item.path: find_damage(item.path) for item in found}
    intact = [item for item in found if damages[item.path] is None]
    if not intact:
        raise BadInput(f"--resume-from {found[0].path} is damaged: {damages[found[0].path]}")
    if intact[0].run_id != spec.run_id:
        raise BadInput(
            f"--resume-from {intact[0].path} is of run {intact[0].run_id}, but the spec describes {spec.run_id}: "
            "give the spec that the run was started with"
        )
    return intact[0]
