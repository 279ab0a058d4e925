"""A model with its tokenizer under a task's head, and what it makes of examples."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast, PrinterCallback, Trainer
from transformers.trainer_utils import set_seed

from finetune.encoder import Encoder, check_vocabulary, longest_input
from finetune.head import Features
from finetune.settings import TrainingSettings
from finetune.task import Decided, Task
from finetune.trainer_arguments import arguments
from model.fp32_matmul import allow_onednn_fp32


class TrainedModel:
    """Made by `load_model`; `max_length` is the shorter of the setting and what the model takes."""

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

    @property
    def encoder(self) -> Any:
        """The Hugging Face model: all of it under a head of the Auto classes, else the part below our own."""
        return getattr(self.model, "encoder", self.model)

    def features(self, examples: Sequence[Any]) -> Features:
        """Model inputs; what a log should tell of them is added to `notes`."""
        features = self.task.head.features(examples, self.tokenizer, self.max_length)
        self.notes |= dict(features.notes)
        return features

    def decide(self, examples: Sequence[Any], scratch: Path) -> Decided[Any]:
        """Predictions for examples, with or without labels."""
        features = self.features(examples).by_length()
        outputs = self._outputs(features, scratch) if features.rows else []
        scores = self.task.head.scores(outputs, features, examples)
        return Decided(list(examples), scores, self.task.decide(examples, scores))

    def _outputs(self, features: Features, scratch: Path) -> Any:
        trainer = Trainer(
            model=self.model,
            args=arguments(self.settings, scratch, seed=0),
            data_collator=self.task.head.collate(self.tokenizer),
        )
        trainer.remove_callback(PrinterCallback)
        return trainer.predict(features.rows).predictions  # type: ignore[arg-type]


def load_model(task: Task[Any], encoder: Encoder, settings: TrainingSettings, seed: int) -> TrainedModel:
    """The encoder under the task's head, whose fresh weights are drawn by `seed`."""
    tokenizer = encoder.tokenizer()
    if not torch.cuda.is_available():
        allow_onednn_fp32()
    set_seed(seed)
    model = task.head.build(encoder, task.labels)
    loaded = TrainedModel(task, model, tokenizer, settings)
    check_vocabulary(encoder.name, loaded.encoder, tokenizer)
    if settings.gradient_checkpointing:
        loaded.encoder.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return loaded
