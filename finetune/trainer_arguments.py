"""From our settings to the Trainer's arguments: precision by hardware, one evaluation and checkpoint an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from finetune.checkpoints import newest_checkpoint
from finetune.errors import BadInput
from finetune.settings import TrainingSettings
from finetune.task import Task

_OPTIMIZERS = {"adamw": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit"}
_LOGS = 10  # values of the loss in the log of a short training


@dataclass(frozen=True)
class Schedule:
    """How much there is to train: rows of features, passes over them, and where checkpoints lie."""

    rows: int
    epochs: float
    checkpoints: Path

    def steps(self, settings: TrainingSettings) -> int:
        batches = math.ceil(self.rows / settings.batch_size)
        return math.ceil(self.epochs * math.ceil(batches / settings.gradient_accumulation))


def arguments(settings: TrainingSettings, directory: Path, seed: int, **more: Any) -> TrainingArguments:
    """What training and predicting share; nothing is reported to services."""
    if settings.precision == "fp16" and not torch.cuda.is_available():
        raise BadInput("--set precision=fp16 needs a GPU; fp32 and bf16 work everywhere")
    automatic = settings.precision == "auto" and torch.cuda.is_available()
    has_bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return TrainingArguments(
        output_dir=str(directory),
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.evaluation_batch_size,
        seed=seed,
        bf16=settings.precision == "bf16" or (automatic and has_bf16),
        fp16=settings.precision == "fp16" or (automatic and not has_bf16),
        remove_unused_columns=False,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        **more,
    )


def training_arguments(
    settings: TrainingSettings, schedule: Schedule, task: Task[Any], seed: int
) -> TrainingArguments:
    """Early stopping and the best checkpoint go by the task's metric."""
    steps = schedule.steps(settings)
    return arguments(
        settings,
        schedule.checkpoints,
        seed,
        num_train_epochs=schedule.epochs,
        learning_rate=settings.learning_rate,
        warmup_steps=round(settings.warmup_share * steps),
        weight_decay=settings.weight_decay,
        gradient_accumulation_steps=settings.gradient_accumulation,
        optim=_OPTIMIZERS[settings.optimizer],
        logging_steps=max(1, min(50, steps // _LOGS)),
        # a loss that is not a number must be seen, not smoothed away
        logging_nan_inf_filter=False,
        load_best_model_at_end=True,
        metric_for_best_model=task.metric,
        greater_is_better=True,
        save_total_limit=1,
        label_names=list(task.head.input_labels),
        restore_callback_states_from_checkpoint=newest_checkpoint(schedule.checkpoints) is not None,
        **_when_to_evaluate(settings),
        **(_batches_of_like_length() if task.head.rows_have_length else {}),
    )


def _when_to_evaluate(settings: TrainingSettings) -> dict[str, Any]:
    if settings.evaluate_every is None:
        return {"eval_strategy": "epoch", "save_strategy": "epoch"}
    every = settings.evaluate_every
    return {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": every, "save_steps": every}


def _batches_of_like_length() -> dict[str, Any]:
    """Texts of one batch about equally long: half of a batch would be padding otherwise."""
    names = {field.name for field in fields(TrainingArguments)}
    # version 5 of transformers has another name for it than 4
    if "group_by_length" in names:
        return {"group_by_length": True}
    return {"train_sampling_strategy": "group_by_length"}
