"""Continuing a run from checkpoints alone, on a machine that has nothing else of it; or beginning one with weights.

A checkpoint of the same run goes on at its step with its optimizer and the settings that were changed while it ran.
Anything else with weights, another run's checkpoint or a converted one, begins a new run (`first_weights`). The weights
fit only the tokenizer they were trained with, so that one is taken from the checkpoint as well. The new coordinator has
an identity of its own: its peers join by its own `peer join` line.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from pydantic import ValidationError

from coordinator.checkpoints import (
    MANIFEST,
    Checkpoint,
    CheckpointStore,
    checkpoint_name,
    find_damage,
    read_checkpoint,
)
from coordinator.first_weights import FIRST_STEP, TOKENIZER_FILES, begin_with_weights, has_weights
from coordinator.run_directory import RunDirectory
from coordinator.settings_desk import SettingsDesk
from coordinator.unreadable import why_unreadable
from swarm.bundle import TOKENIZER_FOLDER
from swarm.errors import BadInput
from swarm.settings import RunSettings, SettingsPlan
from swarm.spec import RunSpec

logger = logging.getLogger(__name__)

STAGING = ".adopting"


def adopt_checkpoint(
    source: Path, directory: RunDirectory, spec: RunSpec, say: Callable[[str], None]
) -> None:
    """Make the checkpoint in or under `source` the first one of a run directory that has no intact one yet.

    :raises BadInput: there is no intact checkpoint, or its model is another one than the spec's
    """
    store = CheckpointStore.of(directory.checkpoints_path, spec)
    if store.newest_intact() is not None:
        say(f"{directory.path} has checkpoints of its own; going on from the newest of those")
        return
    found = find_checkpoint(source, spec)
    if not isinstance(found, Checkpoint):
        begin_with_weights(found, store, spec, directory.bundle_path / TOKENIZER_FOLDER)
        say(f"a new run that begins with the weights in {found}, at step {FIRST_STEP}")
        return
    staging = directory.path / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(found.path, staging)
    target = directory.checkpoints_path / checkpoint_name(found.step)
    shutil.rmtree(target, ignore_errors=True)  # a damaged one
    os.replace(staging, target)
    say(f"adopted {found.path} at step {found.step}")
    _adopt_settings(found, directory, spec, say)


def _adopt_settings(
    checkpoint: Checkpoint, directory: RunDirectory, spec: RunSpec, say: Callable[[str], None]
) -> None:
    """What was changed while the run went on, up to the checkpoint, holds again."""
    if checkpoint.settings is None or directory.settings_path.exists():
        return
    try:
        plan = SettingsPlan.model_validate(checkpoint.settings)
    except ValidationError as error:
        raise BadInput(
            f"the settings in {checkpoint.path / MANIFEST} cannot be read ({why_unreadable(error)}): "
            "give another checkpoint to --resume-from"
        ) from None
    SettingsDesk.lay_out(directory.settings_path, spec.run_id, plan)
    values = RunSettings.of(spec).model_dump()
    changes = {
        key: value
        for key, value in plan.entries[-1].settings.model_dump().items()
        if value != values.get(key)
    }
    words = ", ".join(f"{key} = {value}" for key, value in changes.items())
    say(f"settings as they were changed hold again: {words or 'those of the spec'}")


def copy_tokenizer_of_checkpoint(directory: RunDirectory, spec: RunSpec, target: Path) -> Path | None:
    """Copy the tokenizer of a run directory's newest intact checkpoint to `target`; None if it has no checkpoint."""
    store = CheckpointStore.of(directory.checkpoints_path, spec)
    newest = store.newest_intact()
    if newest is None:
        return None
    for file in newest.path.glob(TOKENIZER_FILES):
        shutil.copy(file, target)
    return target


def find_checkpoint(source: Path, spec: RunSpec) -> Checkpoint | Path:
    """What `source` is, or the newest intact one in it: a checkpoint of this run, or a folder with weights.

    :raises BadInput: there is neither
    """
    if not source.is_dir():
        raise BadInput(
            f"--resume-from {source} is not a directory: give a checkpoint, or a folder of checkpoints"
        )
    folders = [source, *(path for path in source.iterdir() if path.is_dir() and not path.is_symlink())]
    readable = [item for item in map(read_checkpoint, folders) if item is not None]
    ours = [item for item in readable if item.run_id == spec.run_id]
    if not readable and has_weights(source):
        return source
    if not readable:
        raise BadInput(
            f"--resume-from {source} holds no checkpoint: it should have a manifest.json or a model.safetensors, "
            "or step-… folders"
        )
    for item in sorted(ours or readable, key=lambda item: item.step, reverse=True):
        if (damage := find_damage(item.path)) is None:
            return item if ours else item.path
        logger.warning("checkpoint %s is damaged (%s); trying an older one", item.path, damage)
    raise BadInput(f"--resume-from {source} holds no intact checkpoint: give another copy")
