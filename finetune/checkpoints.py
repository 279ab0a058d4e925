"""The Trainer's checkpoints of a training that may have been interrupted, also in the middle of writing one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from finetune.run_directory import write_json

_TRAINER_STATE = "trainer_state.json"  # the Trainer writes it last


def newest_checkpoint(directory: Path) -> str | None:
    """The newest checkpoint that was written to its end; half-written ones are removed."""
    if not directory.is_dir():
        return None
    found = sorted(directory.glob("checkpoint-*"), key=lambda path: int(path.name.rsplit("-", 1)[1]))
    for path in reversed(found):
        if (path / _TRAINER_STATE).is_file():
            _follow_moved_directory(path)
            return str(path)
        shutil.rmtree(path, ignore_errors=True)
    return None


def _follow_moved_directory(checkpoint: Path) -> None:
    """Let the Trainer find the best checkpoint again where the output was moved: it keeps a path, not a name."""
    state = json.loads((checkpoint / _TRAINER_STATE).read_text())
    best = Path(state.get("best_model_checkpoint") or checkpoint)
    here = checkpoint.parent / best.name
    if here.is_dir() and not best.is_dir():
        state["best_model_checkpoint"] = str(here)
        write_json(checkpoint / _TRAINER_STATE, state)
