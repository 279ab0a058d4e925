"""Classification of any texts: a CSV or JSONL file with a text and a label in every row.

With a `positive_label` and `at_precision` the task also chooses an operating point: the threshold on the
positive class's probability that finds most on the validation set while keeping the precision asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import Field, model_validator

from finetune.data_source import DataLayout, DataSource
from finetune.errors import BadInput
from finetune.heads.sequence import SequenceHead, TextExample
from finetune.labels import LabelWords
from finetune.metrics import accuracy, f1_of_class, macro_f1, matthews_correlation
from finetune.operating_point import at_threshold, choose_operating_point, probabilities_of_class
from finetune.rows import Row
from finetune.splits import OPTIONAL, splits_named
from finetune.task import TEST, TRAIN, VALIDATION, Decided, LabelledTask, Scores, TaskOptions, gold_labels


class ClassificationOptions(TaskOptions):
    """Names of the columns, and the operating point."""

    text_field: str = Field("text", description="column of the text")
    second_field: str | None = Field(None, description="column of a second text, for pairs")
    label_field: str = Field("label", description="column of the label")
    id_field: str = Field("id", description="column of the id; rows are numbered where it is absent")
    positive_label: str | None = Field(None, description="the class to be found, for an operating point")
    at_precision: float | None = Field(None, gt=0, le=1, description="least precision of the operating point")

    @model_validator(mode="after")
    def _both_or_neither(self) -> ClassificationOptions:
        if (self.positive_label is None) != (self.at_precision is None):
            raise ValueError("positive_label and at_precision go together")
        return self


class Classification(LabelledTask[TextExample]):
    """Any number of classes: macro F1, accuracy, Matthews correlation."""

    layout = DataLayout("classification", splits_named(".csv", ".tsv", ".jsonl"), OPTIONAL)
    head = SequenceHead()
    metric = "f1"
    metrics = ("f1",)
    measures_test = True
    options_class = ClassificationOptions
    options: ClassificationOptions

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        self._words = LabelWords((), ())
        self._rows_read = 0

    @classmethod
    def of_labels(cls, labels: Sequence[str]) -> Classification:
        """The task of a model whose labels are known already."""
        task = cls()
        task._words = LabelWords(tuple(label.lower() for label in labels), tuple(labels))
        return task

    @property
    def labels(self) -> Sequence[str]:
        return self._words.submission

    def read(self, source: DataSource, split: str) -> list[TextExample]:
        self._rows_read = 0
        if split == TRAIN:
            self._learn_labels(source.rows(split))
        return super().read(source, split)

    def _learn_labels(self, rows: Sequence[Row]) -> None:
        found = sorted({row.text(self.options.label_field).strip() for row in rows})
        if len(found) < 2:
            raise BadInput(f"{self.name}: all of the training set has the label {found[0]!r}")
        if len({word.lower() for word in found}) < len(found):
            raise BadInput(f"{self.name}: labels differ in case only: {', '.join(found)}")
        positive = self.options.positive_label
        if positive is not None and positive not in found:
            raise BadInput(f"{self.name}: positive_label {positive!r} is not one of {', '.join(found)}")
        self._words = LabelWords(tuple(word.lower() for word in found), tuple(found))

    def examples(self, row: Row) -> list[TextExample]:
        options = self.options
        idx = row.values[options.id_field] if row.has(options.id_field) else self._rows_read
        self._rows_read += 1
        second = row.text(options.second_field) if options.second_field else None
        label = row.class_of(options.label_field, self._words)
        return [TextExample(idx, row.text(options.text_field), second, label)]

    def measure(self, examples: Sequence[TextExample], predictions: Sequence[int]) -> Scores:
        gold = gold_labels(examples)
        scores = {
            "f1": macro_f1(gold, predictions),
            "accuracy": accuracy(gold, predictions),
            "mcc": matthews_correlation(gold, predictions),
        }
        for number, label in enumerate(self.labels):
            scores[f"f1 {label}"] = f1_of_class(gold, predictions, number)
        return scores

    def findings(self, decided: Mapping[str, Decided[TextExample]]) -> dict[str, Any]:
        """The operating point, chosen on the validation set; on a labelled test set, what it does there."""
        label, precision = self.options.positive_label, self.options.at_precision
        if label is None or precision is None:
            return {}
        number = list(self.labels).index(label)
        point = choose_operating_point(*self._about(decided[VALIDATION], number), label, precision)
        found: dict[str, Any] = {"operating_point": point.as_json()}
        if TEST in decided and point.threshold is not None:
            found["at_operating_point"] = at_threshold(*self._about(decided[TEST], number), point.threshold)
        return found

    def _about(self, decided: Decided[TextExample], number: int) -> tuple[list[float], list[bool]]:
        """Probability of a class, and whether it is the right one, for every example."""
        return probabilities_of_class(decided.scores, number), [e.label == number for e in decided.examples]

    def record(self, example: TextExample, prediction: int) -> dict[str, Any]:
        return {"idx": example.idx, "label": self.labels[prediction]}
