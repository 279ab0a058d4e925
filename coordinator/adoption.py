"""Continuing a run from checkpoints alone, on a machine that has nothing else of it.

The weights fit only the tokenizer they were trained with, so that one is taken from the checkpoint as well. The new
coordinator has an identity of its own: its peers join by its own `peer join` line.
"""

from __future__ import annotations

import logging
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

logger = logging.getLogger(__name__)

STAGING = ".adopting"
# beside the model's config, which a tokenizer's folder must not have, or transformers would run the model's code
TOKENIZER_FILES = "*token*.json"


def adopt_checkpoint(
    source: Path, directory: RunDirectory, spec: RunSpec, say: Callable[[str], None]
) -> None:
    """Copy the checkpoint in or under `source` into a run directory that has no intact one yet.

    :raises BadInput: there is no intact checkpoint of this run
    """
    store = CheckpointStore.of(directory.checkpoints_path, spec)
    if store.newest_intact() is not None:
        say(f"{directory.path} has checkpoints of its own; going on from the newest of those")
        return
    found = find_checkpoint(source, spec)
    staging = directory.path / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(found.path, staging)
    target = directory.checkpoints_path / checkpoint_name(found.step)
    shutil.rmtree(target, ignore_errors=True)  # a damaged one
    os.replace(staging, target)
    say(f"adopted {found.path} at step {found.step}")


def copy_tokenizer_of_checkpoint(directory: RunDirectory, spec: RunSpec, target: Path) -> Path | None:
    """Copy the tokenizer of a run directory's newest intact checkpoint to `target`; None if it has no checkpoint."""
    store = CheckpointStore.of(directory.checkpoints_path, spec)
    newest = store.newest_intact()
    if newest is None:
        return None
    for file in newest.path.glob(TOKENIZER_FILES):
        shutil.copy(file, target)
    return target


def find_checkpoint(source: Path, spec: RunSpec) -> Checkpoint:
    """The checkpoint that `source` is, or the newest intact one in it; raises `BadInput`."""
    if not source.is_dir():
        raise BadInput(
            f"--resume-from {source} is not a directory: give a checkpoint, or a folder of checkpoints"
        )
    folders = [source, *(path for path in source.iterdir() if path.is_dir() and not path.is_symlink())]
    readable = [item for item in map(read_checkpoint, folders) if item is not None]
    if not readable:
        raise BadInput(
            f"--resume-from {source} holds no checkpoint: it should have a manifest.json, or step-… folders"
        )
    ours = [item for item in readable if item.run_id == spec.run_id]
    if not ours:
        raise BadInput(
            f"--resume-from {readable[0].path} is of run {readable[0].run_id}, but the spec describes {spec.run_id}: "
            "give the spec that the run was started with"
        )
    for item in sorted(ours, key=lambda item: item.step, reverse=True):
        if (damage := find_damage(item.path)) is None:
            return item
        logger.warning("checkpoint %s is damaged (%s); trying an older one", item.path, damage)
    raise BadInput(f"--resume-from {source} holds no intact checkpoint: give another copy")
