"""What a task is: its files, how a row becomes an example, its head, its decisions, its metrics, its submission.

One small file in `finetune/tasks` a task; everything that trains, reports or submits knows tasks by this
class only. A task object belongs to one run: reading the training set may teach it labels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from finetune.data_source import DataLayout, DataSource
from finetune.errors import BadInput
from finetune.head import Head
from finetune.labels import LabelWords
from finetune.metrics import accuracy
from finetune.rows import Row

TRAIN, VALIDATION, TEST = "train", "validation", "test"

E = TypeVar("E")
Scores = dict[str, float]


class TaskOptions(BaseModel):
    """Options of one task, set by `--set key=value`; most tasks have none."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Decided(Generic[E]):
    """Examples of one split, what a model scored, and what the task made of it."""

    examples: list[E]
    scores: list[Any]
    predictions: list[Any]


class Task(ABC, Generic[E]):
    """A downstream task.

    :cvar metric: what chooses the best checkpoint and heads the report; bigger is better
    :cvar metrics: all metrics that the report's one figure averages (two of them for three benchmarks)
    :cvar evaluated: labelled splits beside training; the first chooses checkpoints
    :cvar reported: the split, or view of several, whose metrics head the report
    :cvar defaults: training settings that differ for this task
    :cvar measures_test: whether a test split is measured too, if it is labelled
    :cvar trained_as: the task whose model this diagnostic uses, instead of training
    """

    layout: ClassVar[DataLayout]
    metric: ClassVar[str]
    metrics: ClassVar[tuple[str, ...]]
    head: Head[E]
    evaluated: ClassVar[tuple[str, ...]] = (VALIDATION,)
    reported: ClassVar[str] = VALIDATION
    defaults: ClassVar[Mapping[str, Any]] = {}
    trained_as: ClassVar[str | None] = None
    measures_test: ClassVar[bool] = False
    options_class: ClassVar[type[TaskOptions]] = TaskOptions

    def __init__(self, options: TaskOptions | None = None) -> None:
        self.options = options or self.options_class()
        self.notes: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return self.layout.task

    @property
    @abstractmethod
    def labels(self) -> Sequence[str]:
        """Names of the classes, by number."""

    def read(self, source: DataSource, split: str) -> list[E]:
        """Examples of a split; in a labelled split every one has its label."""
        examples = [example for row in source.rows(split) for example in self.examples(row)]
        if not examples:
            raise BadInput(f"{self.name}: the {split} split has no examples")
        return examples

    @abstractmethod
    def examples(self, row: Row) -> list[E]:
        """The examples of one row of a file."""

    @abstractmethod
    def is_hidden(self, example: E) -> bool:
        """Whether the example's label is hidden."""

    @abstractmethod
    def decide(self, examples: Sequence[E], scores: Sequence[Any]) -> list[Any]:
        """Predictions, one an example."""

    @abstractmethod
    def measure(self, examples: Sequence[E], predictions: Sequence[Any]) -> Scores:
        """The benchmark's metrics, of examples with labels."""

    def measure_all(self, decided: Mapping[str, Decided[E]]) -> dict[str, Scores]:
        """Metrics of every labelled split; a task may add more views of the same predictions."""
        return {split: self.measure(d.examples, d.predictions) for split, d in decided.items()}

    def findings(self, decided: Mapping[str, Decided[E]]) -> dict[str, Any]:
        """What else is worth keeping of a seed beside its scores; also saved with its model."""
        return {}

    def files(self, split: str, decided: Decided[E]) -> dict[str, str]:
        """Predictions in further formats people expect: file name and content."""
        return {}

    def main_figure(self, scores: Scores) -> float:
        """The one figure of the leaderboard: the mean where it has two metrics."""
        return float(np.mean([scores[name] for name in self.metrics]))

    @abstractmethod
    def record(self, example: E, prediction: Any) -> dict[str, Any]:
        """One prediction as its line of `predictions/*.jsonl`."""


class LabelledTask(Task[E]):
    """A task whose examples have an `idx` and a `label`, decided by the highest score."""

    words: ClassVar[LabelWords]
    metric = "accuracy"
    metrics: ClassVar[tuple[str, ...]] = ("accuracy",)

    @property
    def labels(self) -> Sequence[str]:
        return self.words.classes

    def is_hidden(self, example: E) -> bool:
        return example.label is None  # type: ignore[attr-defined]

    def decide(self, examples: Sequence[E], scores: Sequence[np.ndarray]) -> list[int]:
        return [int(np.argmax(scores_K)) for scores_K in scores]

    def measure(self, examples: Sequence[E], predictions: Sequence[int]) -> Scores:
        return {"accuracy": accuracy(gold_labels(examples), predictions)}

    def record(self, example: E, prediction: int) -> dict[str, Any]:
        return {"idx": example.idx, "label": self.words.submission[prediction]}  # type: ignore[attr-defined]


def gold_labels(examples: Sequence[Any]) -> list[int]:
    """Class numbers of labelled examples."""
    return [example.label for example in examples]
