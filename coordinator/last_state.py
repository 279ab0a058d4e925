"""The last state that the coordinator has copied from the swarm, on disk: what is between two checkpoints.

Weights and moments without anything around them, written atomically every time the swarm is followed. When the
coordinator is killed and every peer is gone meanwhile, the run goes on from here and not from the last checkpoint.
"""

from __future__ import annotations

import logging
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from swarm.errors import OperationFailed
from swarm.snapshot import Layout, Snapshot
from swarm.training_state import state_digest
from swarm.whole_file import beside, move_into_place

logger = logging.getLogger(__name__)


def write_last_state(path: Path, snapshot: Snapshot, run_id: str) -> None:
    """Replace the file; raises `OperationFailed` and leaves the old one if the disk is full."""
    temporary = beside(path)
    facts = {
        "run_id": run_id,
        "step": str(snapshot.step),
        "branch": snapshot.branch,
        "digest": state_digest(snapshot),
    }
    try:
        save_file({str(index): tensor for index, tensor in enumerate(snapshot.tensors)}, temporary, facts)
        move_into_place(temporary, path)
    except Exception as error:  # safetensors has an error of its own for a full disk
        temporary.unlink(missing_ok=True)
        raise OperationFailed(f"the state of step {snapshot.step} could not be kept ({error})") from None


def read_last_state(path: Path, run_id: str, layouts: list[Layout]) -> Snapshot | None:
    """What was written last, if it is there, whole, and of this run; None otherwise, with a word in the log."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            facts = file.metadata() or {}
            tensors = [file.get_tensor(str(index)) for index in range(len(layouts))]
        snapshot = Snapshot(int(facts["step"]), facts["branch"], tensors)
        fits = facts["run_id"] == run_id and [Layout.of(tensor) for tensor in tensors] == layouts
        if fits and state_digest(snapshot) == facts["digest"]:
            return snapshot
        reason = "it is of another run, or damaged"
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = str(error)
    logger.warning("%s is not used: %s", path, reason)
    return None
