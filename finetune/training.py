"""One training: the Hugging Face Trainer as it is, with early stopping, best checkpoint and resuming.

The Trainer keeps two checkpoints: the best by the task's metric, and the newest, from which an interrupted
training goes on exactly where it was (weights, optimizer, schedule, random states, patience).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import SequentialSampler
from transformers import EarlyStoppingCallback, EvalPrediction, PrinterCallback, Trainer

from finetune.checkpoints import newest_checkpoint
from finetune.errors import BadInput, OperationFailed
from finetune.head import Features
from finetune.progress import ProgressReport
from finetune.task import Task
from finetune.trained_model import TrainedModel
from finetune.trainer_arguments import Schedule, training_arguments
from model.peak_memory import PeakMemory

_TENSOR_TOO_BIG = ("out of memory", "can't allocate memory", "not enough memory")


@dataclass(frozen=True)
class Stage:
    """One training of a seed: on which examples, for how long, with its checkpoints where."""

    name: str
    examples: Sequence[Any]
    epochs: float
    checkpoints: Path


@dataclass(frozen=True)
class TrainingOutcome:
    """What a stage came to, for the summary. Memory is what training took on top of the loaded model."""

    stage: str
    steps: int
    epochs: float
    best_metric: float | None
    train_loss: float | None
    seconds: float
    peak_memory_bytes: int


class OrderedTrainer(Trainer):
    """The Trainer, but for one thing: with batches of like length it also draws the *evaluation's* order at
    random, and the metrics would be of predictions that belong to other examples."""

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        if self.args.world_size > 1:
            return super()._get_eval_sampler(eval_dataset)
        return SequentialSampler(eval_dataset)


def train(trained: TrainedModel, stage: Stage, validation: Sequence[Any], seed: int) -> TrainingOutcome:
    """Train in place; the model ends as its best checkpoint. Goes on with a training that was interrupted."""
    rows = trained.features(stage.examples).rows
    if not rows:
        raise BadInput(f"{trained.task.name}: no training example fits into {trained.max_length} tokens")
    name = f"{trained.task.name} seed {seed}" + (f", {stage.name}" if stage.name else "")
    progress = ProgressReport(name, trained.task.metric)
    memory = PeakMemory("cuda" if torch.cuda.is_available() else "cpu")
    trainer = _trainer(trained, rows, stage, validation, seed, progress)
    try:
        outcome = trainer.train(resume_from_checkpoint=newest_checkpoint(stage.checkpoints))
    except RuntimeError as error:
        if any(words in str(error).lower() for words in _TENSOR_TOO_BIG):
            raise OperationFailed(
                f"{name}: not enough memory for batch_size {trained.settings.batch_size}; try a smaller one with "
                "more gradient_accumulation, gradient_checkpointing=true or optimizer=adamw_8bit"
            ) from None
        raise
    finally:
        progress.close()
    return TrainingOutcome(
        stage.name or "training",
        trainer.state.global_step,
        round(trainer.state.epoch or 0.0, 3),
        trainer.state.best_metric,
        outcome.training_loss,
        round(outcome.metrics.get("train_runtime", 0.0), 1),
        memory.peak_bytes(),
    )


def _trainer(
    trained: TrainedModel,
    rows: list[dict[str, Any]],
    stage: Stage,
    validation: Sequence[Any],
    seed: int,
    progress: ProgressReport,
) -> OrderedTrainer:
    task, settings = trained.task, trained.settings
    features = trained.features(validation).by_length()
    trainer = OrderedTrainer(
        model=trained.model,
        args=training_arguments(settings, Schedule(len(rows), stage.epochs, stage.checkpoints), task, seed),
        train_dataset=rows,  # type: ignore[arg-type]
        eval_dataset=features.rows,  # type: ignore[arg-type]
        data_collator=task.head.collate(trained.tokenizer),
        compute_metrics=_metrics_of(task, features, validation),
        callbacks=[EarlyStoppingCallback(settings.patience), progress],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _metrics_of(
    task: Task[Any], features: Features, examples: Sequence[Any]
) -> Callable[[EvalPrediction], dict[str, float]]:
    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        scores = task.head.scores(prediction.predictions, features, examples)
        return task.measure(examples, task.decide(examples, scores))

    return metrics
