"""One seed of one task: the Hugging Face Trainer as it is, with early stopping, best checkpoint and resuming.

The Trainer keeps two checkpoints: the best by the task's metric, and the newest, from which an interrupted
training goes on exactly where it was (weights, optimizer, schedule, random states, patience).
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PreTrainedTokenizerFast,
    PrinterCallback,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import set_seed

from finetune.encoder import Encoder, check_vocabulary, longest_input
from finetune.errors import BadInput, OperationFailed
from finetune.head import Features
from finetune.progress import ProgressReport
from finetune.run_directory import write_json
from finetune.settings import TrainingSettings
from finetune.task import Decided, Task
from model.fp32_matmul import allow_onednn_fp32
from model.peak_memory import PeakMemory

_OPTIMIZERS = {"adamw": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit"}
_TRAINER_STATE = "trainer_state.json"
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
    """What a stage came to, for the summary."""

    stage: str
    steps: int
    epochs: float
    best_metric: float | None
    train_loss: float | None
    seconds: float
    peak_memory_bytes: int


class TrainedModel:
    """A model with its tokenizer, and what it makes of examples."""

    def __init__(
        self,
        task: Task[Any],
        model: nn.Module,
        tokenizer: PreTrainedTokenizerFast,
        settings: TrainingSettings,
    ) -> None:
        self.task, self.model, self.tokenizer, self.settings = task, model, tokenizer, settings
        self.max_length = min(settings.max_length, longest_input(model.config, tokenizer))  # type: ignore[arg-type]
        self.notes: dict[str, int] = {}

    def features(self, examples: Sequence[Any]) -> Features:
        return self.task.head.features(examples, self.tokenizer, self.max_length)

    def decide(self, examples: Sequence[Any], scratch: Path) -> Decided[Any]:
        """Predictions for examples, with or without labels."""
        features = self.features(examples).by_length()
        self.notes |= dict(features.notes)
        outputs = self._outputs(features, scratch) if features.rows else []
        scores = self.task.head.scores(outputs, features, examples)
        return Decided(list(examples), scores, self.task.decide(examples, scores))

    def _outputs(self, features: Features, scratch: Path) -> Any:
        trainer = Trainer(
            model=self.model,
            args=arguments(self.settings, scratch, seed=0),
            data_collator=self.task.head.collate(self.tokenizer),
            callbacks=[],
        )
        trainer.remove_callback(PrinterCallback)
        return trainer.predict(features.rows).predictions  # type: ignore[arg-type]


def load_for_training(
    task: Task[Any], encoder: Encoder, settings: TrainingSettings, seed: int
) -> TrainedModel:
    """The encoder under the task's head, whose fresh weights are drawn by `seed`."""
    tokenizer = encoder.tokenizer()
    if not torch.cuda.is_available():
        allow_onednn_fp32()
    set_seed(seed)
    model = task.head.build(encoder, task.labels)
    base = getattr(model, "encoder", model)
    check_vocabulary(encoder.name, base, tokenizer)
    return TrainedModel(task, model, tokenizer, settings)


def train(trained: TrainedModel, stage: Stage, validation: Sequence[Any], seed: int) -> TrainingOutcome:
    """Train in place; the model ends as its best checkpoint. Goes on with a training that was interrupted."""
    task, settings = trained.task, trained.settings
    train_features, validation_features = (
        trained.features(stage.examples),
        trained.features(validation).by_length(),
    )
    trained.notes |= dict(train_features.notes)
    if not train_features.rows:
        raise BadInput(f"{task.name}: no training example fits into {trained.max_length} tokens")
    if settings.gradient_checkpointing:
        base = getattr(trained.model, "encoder", trained.model)
        base.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})  # type: ignore[operator]
    progress = ProgressReport(f"{task.name} seed {seed}{stage.name and ', ' + stage.name}", task.metric)
    memory = PeakMemory("cuda" if torch.cuda.is_available() else "cpu")
    trainer = Trainer(
        model=trained.model,
        args=_training_arguments(settings, stage, task, len(train_features.rows), seed),
        train_dataset=train_features.rows,  # type: ignore[arg-type]
        eval_dataset=validation_features.rows,  # type: ignore[arg-type]
        data_collator=task.head.collate(trained.tokenizer),
        compute_metrics=_metrics_of(task, validation_features, validation),
        callbacks=[EarlyStoppingCallback(settings.patience), progress],
    )
    trainer.remove_callback(PrinterCallback)
    try:
        outcome = trainer.train(resume_from_checkpoint=newest_checkpoint(stage.checkpoints))
    except RuntimeError as error:
        if any(words in str(error).lower() for words in _TENSOR_TOO_BIG):
            raise OperationFailed(
                f"{task.name}: not enough memory for batch_size {settings.batch_size}; try a smaller one with "
                "more gradient_accumulation, gradient_checkpointing=true or optimizer=adamw_8bit"
            ) from None
        raise
    finally:
        progress.close()
    best = trainer.state.best_metric
    return TrainingOutcome(
        stage.name or "training",
        trainer.state.global_step,
        round(trainer.state.epoch or 0.0, 3),
        best,
        outcome.training_loss,
        round(outcome.metrics.get("train_runtime", 0.0), 1),
        memory.peak_bytes(),
    )


def arguments(settings: TrainingSettings, directory: Path, seed: int, **more: Any) -> TrainingArguments:
    """Trainer arguments that every use shares: precision by hardware, no reports to services."""
    if settings.precision == "fp16" and not torch.cuda.is_available():
        raise BadInput("--set precision=fp16 needs a GPU; fp32 and bf16 work everywhere")
    return TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.evaluation_batch_size,
        seed=seed,
        bf16=settings.precision == "bf16" or (settings.precision == "auto" and _has_bf16()),
        fp16=settings.precision == "fp16" or (settings.precision == "auto" and _has_only_fp16()),
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        **more,
    )


def _training_arguments(
    settings: TrainingSettings, stage: Stage, task: Task[Any], rows: int, seed: int
) -> TrainingArguments:
    steps_an_epoch = math.ceil(math.ceil(rows / settings.batch_size) / settings.gradient_accumulation)
    steps = math.ceil(stage.epochs * steps_an_epoch)
    when = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    every: dict[str, Any] = {}
    if settings.evaluate_every is not None:
        when = {"eval_strategy": "steps", "save_strategy": "steps"}
        every = {"eval_steps": settings.evaluate_every, "save_steps": settings.evaluate_every}
    return arguments(
        settings,
        stage.checkpoints,
        seed,
        num_train_epochs=stage.epochs,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup_share * steps),
        weight_decay=settings.weight_decay,
        gradient_accumulation_steps=settings.gradient_accumulation,
        optim=_OPTIMIZERS[settings.optimizer],
        logging_steps=max(1, min(50, steps // 10)),
        # a loss that is not a number must be seen, not smoothed away
        logging_nan_inf_filter=False,
        load_best_model_at_end=True,
        metric_for_best_model=task.metric,
        greater_is_better=True,
        save_total_limit=1,
        label_names=list(task.head.input_labels),
        **(_batches_of_like_length() if task.head.rows_have_length else {}),
        restore_callback_states_from_checkpoint=newest_checkpoint(stage.checkpoints) is not None,
        **when,
        **every,
    )


def _batches_of_like_length() -> dict[str, Any]:
    """Texts of one batch about equally long: half of a batch would be padding otherwise."""
    names = {field.name for field in fields(TrainingArguments)}
    # version 5 of transformers has another name for it than 4
    return (
        {"group_by_length": True}
        if "group_by_length" in names
        else {"train_sampling_strategy": "group_by_length"}
    )


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


def _metrics_of(
    task: Task[Any], features: Features, examples: Sequence[Any]
) -> Callable[[EvalPrediction], dict[str, float]]:
    def metrics(prediction: EvalPrediction) -> dict[str, float]:
        scores = task.head.scores(prediction.predictions, features, examples)
        return task.measure(examples, task.decide(examples, scores))

    return metrics


def _has_bf16() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def _has_only_fp16() -> bool:
    return torch.cuda.is_available() and not _has_bf16()
