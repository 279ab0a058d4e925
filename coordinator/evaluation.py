"""Held-out loss of a state: the same masked rows for the whole run, so that figures can be compared."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from data_prep.heldout import load_heldout
from swarm.training_state import TrainingState

BATCH_ROWS = 32


class HeldoutEvaluator:
    """Evaluates states on the run bundle's held-out set."""

    def __init__(self, path: Path):
        self._rows = load_heldout(path)

    def loss(self, state: TrainingState, max_rows: int | None = None) -> float:
        """Mean cross-entropy in nats over all masked tokens of (the first `max_rows` of) the held-out rows."""
        total, masked = 0.0, 0
        was_training = state.model.training
        state.model.eval()
        with torch.inference_mode(), state.lock:
            for batch in self._batches(max_rows):
                count = int((batch["labels"] != -100).sum())
                output = state.model(**batch, masked_positions_only=True)
                total, masked = total + float(output.loss) * count, masked + count
        state.model.train(was_training)
        return total / masked if masked else math.nan

    def _batches(self, max_rows: int | None) -> list[dict[str, torch.Tensor]]:
        rows = len(self._rows["input_ids"]) if max_rows is None else max_rows
        return [
            {name: tensor[start : min(start + BATCH_ROWS, rows)] for name, tensor in self._rows.items()}
            for start in range(0, rows, BATCH_ROWS)
        ]
