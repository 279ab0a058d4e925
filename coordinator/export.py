"""The directory to publish: what a model hub and its users need of a checkpoint, and nothing that only we do.

Weights, config, model code, tokenizer, model card; with the optimizer's state and the manifest it is a checkpoint that
`--resume-from` takes as well. Written under a temporary name and renamed.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from coordinator.checkpoints import LATEST, MANIFEST, OPTIMIZER, Checkpoint, find_damage, read_checkpoint
from swarm.errors import BadInput, OperationFailed

NOT_PUBLISHED = frozenset({OPTIMIZER, MANIFEST})


def choose_checkpoint(checkpoints: Path, wanted: str) -> Checkpoint:
    """The checkpoint that `wanted` names: `latest`, `best` (by held-out loss) or a global step.

    :raises BadInput: there is none of that name, or it is damaged
    """
    found = sorted(
        (item for item in map(read_checkpoint, checkpoints.glob("step-*")) if item is not None),
        key=lambda item: item.step,
    )
    if not found:
        raise BadInput(f"{checkpoints} holds no checkpoint: give the --run-dir of a run that has made one")
    if wanted == LATEST:
        chosen = found[-1]
    elif wanted == "best":
        chosen = min(found, key=lambda item: float("inf") if item.heldout_loss is None else item.heldout_loss)
    else:
        of_step = [item for item in found if str(item.step) == wanted]
        if not of_step:
            steps = ", ".join(str(item.step) for item in found)
            raise BadInput(f"there is no checkpoint of step {wanted}: give latest, best or one of {steps}")
        chosen = of_step[0]
    if (damage := find_damage(chosen.path)) is not None:
        raise BadInput(f"{chosen.path} is damaged ({damage}): choose another with --checkpoint")
    return chosen


def export_checkpoint(
    checkpoint: Checkpoint, target: Path, *, with_optimizer: bool = False, link: bool = False
) -> None:
    """Copy (or hard-link) the files to publish into a new directory.

    :raises BadInput: `target` is there already and not empty
    :raises OperationFailed: it cannot be written
    """
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise BadInput(f"{target} exists already: give a directory that is empty or not there yet")
    left_out = frozenset() if with_optimizer else NOT_PUBLISHED
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}-"))
    except OSError as error:
        raise OperationFailed(
            f"{target} cannot be written ({error.strerror}): choose another directory"
        ) from None
    try:
        for source in sorted(path for path in checkpoint.path.rglob("*") if path.is_file()):
            name = source.relative_to(checkpoint.path)
            if name.as_posix() not in left_out:
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                _copy(source, staging / name, link)
        os.chmod(staging, 0o755)
        os.replace(staging, target)
    except OSError as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise OperationFailed(
            f"{target} cannot be written ({error.strerror}): make room, or choose another"
        ) from None


def _copy(source: Path, target: Path, link: bool) -> None:
    if link:
        try:
            os.link(source, target)
            return
        except OSError:  # a disk that knows no hard links
            pass
    shutil.copyfile(source, target)
