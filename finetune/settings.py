"""Everything about a fine-tuning that may differ between runs of one task, as one frozen object.

Defaults suit an encoder of BERT's size; a task may have defaults of its own, `--set key=value` overrides
both. An unknown key or an impossible value is an error that names the key and what there is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune.errors import BadInput
from finetune.task import Task, TaskOptions


class TrainingSettings(BaseModel):
    """How long, how fast, how exactly.

    >>> TrainingSettings(epochs=3, learning_rate=1e-5).batch_size
    32
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    epochs: float = Field(10, gt=0, description="passes over the training set, at most")
    learning_rate: float = Field(2e-5, gt=0, description="peak of the learning rate")
    warmup_share: float = Field(0.06, ge=0, lt=1, description="share of all steps with a growing rate")
    weight_decay: float = Field(0.01, ge=0)
    batch_size: int = Field(32, ge=1, description="examples forward and backward at once")
    gradient_accumulation: int = Field(1, ge=1, description="batches to an optimizer step")
    evaluation_batch_size: int = Field(64, ge=1)
    max_length: int = Field(512, ge=16, description="tokens of an input; the model's own limit holds as well")
    patience: int = Field(3, ge=1, description="evaluations without progress before training ends")
    evaluate_every: int | None = Field(None, ge=1, description="optimizer steps; default: once an epoch")
    dropout: float | None = Field(
        None, ge=0, lt=1, description="every dropout of the model; default: its own"
    )
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    gradient_checkpointing: bool = Field(False, description="less memory, about a third more time")
    first_stage_epochs: float = Field(3, gt=0, description="passes over the data of --first-stage-data")
    max_train_examples: int | None = Field(None, ge=1, description="take only so many, for a trial")


def parse_settings(task: type[Task[Any]], assignments: Sequence[str]) -> tuple[TrainingSettings, TaskOptions]:
    """Settings and task options from `key=value` words over the task's defaults; `BadInput` names a wrong key."""
    given: dict[str, str] = {}
    for assignment in assignments:
        key, sign, value = assignment.partition("=")
        if not sign:
            raise BadInput(f"--set {assignment}: key=value is expected")
        given[key.strip()] = value.strip()
    known_options, known = task.options_class.model_fields, TrainingSettings.model_fields
    unknown = [key for key in given if key not in known_options and key not in known]
    if unknown:
        there = ", ".join((*known, *known_options))
        raise BadInput(f"--set {unknown[0]}: no such setting of {task.layout.task}; there are {there}")
    settings = {**task.defaults, **{key: _value(value) for key, value in given.items() if key in known}}
    options = {key: _value(value) for key, value in given.items() if key in known_options}
    return _checked(TrainingSettings, settings), _checked(task.options_class, options)


def _value(text: str) -> Any:
    return None if text.lower() in ("none", "null") else text


def _checked(model: Any, values: Mapping[str, Any]) -> Any:
    try:
        return model(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key, words = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        raise BadInput(f"--set {key + ': ' if key else ''}{words}") from None
