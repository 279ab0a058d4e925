"""Scores of a state on the held-out set: the same masked rows for the whole run, so that figures can be compared.

Masked-LM loss and accuracy in all and by source of the text, where the held-out set knows its sources; and, on
request, the pseudo-perplexity, for which every token is masked by itself: as many forward passes as tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

from data_prep.heldout import load_heldout, load_heldout_sources
from model import LeanAlbertNetwork
from swarm.training_state import TrainingState

BATCH_ROWS = 32
# enough to tell a state of the run from garbage, and done in a moment
PROBE_ROWS = 16
IGNORED = -100


@dataclass(frozen=True)
class Score:
    """Mean cross-entropy in nats, and share of tokens predicted right, over `tokens` masked tokens."""

    loss: float
    accuracy: float
    tokens: int


@dataclass(frozen=True)
class Evaluation(Score):
    """The score of all rows, and by source; `by_source` is empty where the held-out set does not know it."""

    by_source: dict[str, Score] = field(default_factory=dict)


class HeldoutEvaluator:
    """Evaluates states on the run bundle's held-out set."""

    def __init__(self, path: Path):
        self._rows = load_heldout(path)
        self._sources = load_heldout_sources(path)

    def loss(self, state: TrainingState, max_rows: int | None = None) -> float:
        """Mean cross-entropy in nats over all masked tokens of (the first `max_rows` of) the held-out rows."""
        return self.evaluate(state, max_rows).loss

    def probe(self, state: TrainingState) -> float:
        """The loss that head records tell: of a few rows, the same ones for everybody."""
        return self.loss(state, PROBE_ROWS)

    def evaluate(self, state: TrainingState, max_rows: int | None = None) -> Evaluation:
        """Score a state on (the first `max_rows` of) the held-out rows; NaN where nothing is masked."""
        model = state.model
        was_training = model.training
        model.eval()
        with torch.inference_mode(), state.lock:
            parts = [_score_tokens(model, batch) for batch in self._batches(max_rows)]
        model.train(was_training)
        losses, right, rows = (torch.cat(columns) for columns in zip(*parts, strict=True))
        whole = _mean(losses, right)
        return Evaluation(
            whole.loss, whole.accuracy, whole.tokens, dict(self._by_source(losses, right, rows))
        )

    def _by_source(
        self, losses: torch.Tensor, right: torch.Tensor, rows: torch.Tensor
    ) -> Iterator[tuple[str, Score]]:
        if self._sources is None:
            return
        for source in sorted(set(self._sources)):
            own = torch.tensor([name == source for name in self._sources])[rows]
            if bool(own.any()):
                yield source, _mean(losses[own], right[own])

    def _batches(self, max_rows: int | None) -> list[dict[str, torch.Tensor]]:
        rows = len(self._rows["input_ids"]) if max_rows is None else max_rows
        return [
            {
                "rows": torch.arange(len(self._rows["input_ids"]))[start : min(start + BATCH_ROWS, rows)],
                **{
                    name: tensor[start : min(start + BATCH_ROWS, rows)] for name, tensor in self._rows.items()
                },
            }
            for start in range(0, rows, BATCH_ROWS)
        ]


def pseudo_perplexity(
    model: LeanAlbertNetwork, heldout: Path, mask_token_id: int, special: frozenset[int], rows: int
) -> Score:
    """Score with each token of the first `rows` held-out rows masked by itself.

    exp of the loss is the pseudo-perplexity of Salazar et al. (2020, "Masked Language Model Scoring").

    :param special: ids that are not text: padding, classifier, separator
    """
    kept = load_heldout(heldout)
    model.eval()
    parts = []
    with torch.inference_mode():
        for ids, labels in zip(kept["input_ids"][:rows], kept["labels"][:rows], strict=True):
            text = torch.where(labels == IGNORED, ids, labels)
            parts += list(_score_one_by_one(model, text, mask_token_id, special))
    if not parts:
        return Score(math.nan, math.nan, 0)
    losses, right = (torch.cat(columns) for columns in zip(*parts, strict=True))
    return _mean(losses, right)


def _score_one_by_one(
    model: LeanAlbertNetwork, text: torch.Tensor, mask_token_id: int, special: frozenset[int]
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    places = torch.tensor([place for place, token in enumerate(text.tolist()) if token not in special])
    pad = model.config.pad_token_id
    padding = torch.ones_like(text, dtype=torch.bool) if pad is None else text != pad
    for chunk in places.split(BATCH_ROWS):
        hidden = text.repeat(len(chunk), 1)
        hidden[torch.arange(len(chunk)), chunk] = mask_token_id
        labels = torch.full_like(hidden, IGNORED)
        labels[torch.arange(len(chunk)), chunk] = text[chunk]
        batch = {
            "input_ids": hidden,
            "attention_mask": padding.long().repeat(len(chunk), 1),
            "labels": labels,
        }
        losses, right, _rows = _score_tokens(model, {**batch, "rows": chunk})
        yield losses, right


def _score_tokens(
    model: LeanAlbertNetwork, batch: dict[str, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Loss, rightness and row of every masked token of a batch; `rows` in it numbers its rows."""
    inputs = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "rows"}
    masked = batch["labels"] != IGNORED
    labels = batch["labels"][masked]
    scores = model(**inputs, masked_positions_only=True).prediction_logits.float().cpu()
    rows = batch["rows"][:, None].expand_as(masked)[masked]
    return cross_entropy(scores, labels, reduction="none"), scores.argmax(-1) == labels, rows


def _mean(losses: torch.Tensor, right: torch.Tensor) -> Score:
    if not len(losses):
        return Score(math.nan, math.nan, 0)
    return Score(float(losses.double().mean()), float(right.double().mean()), len(losses))
