"""RCB: does the text commit its author to the hypothesis, to its contrary, or to neither?"""

from __future__ import annotations

from collections.abc import Sequence

from finetune.heads.sequence import SequenceHead, TextExample
from finetune.labels import LABEL_WORDS
from finetune.metrics import accuracy, macro_f1
from finetune.rows import Row
from finetune.superglue import superglue_layout
from finetune.task import LabelledTask, Scores, gold_labels


class RCB(LabelledTask[TextExample]):
    """Three classes, measured by macro F1 and accuracy; the rarest class decides F1, so F1 chooses."""

    layout = superglue_layout("RCB")
    words = LABEL_WORDS["RCB"]
    head = SequenceHead()
    metric = "f1"
    metrics = ("f1", "accuracy")

    def examples(self, row: Row) -> list[TextExample]:
        premise, hypothesis = row.text("premise"), row.text("hypothesis")
        return [TextExample(row.integer("idx"), premise, hypothesis, row.class_of("label", self.words))]

    def measure(self, examples: Sequence[TextExample], predictions: Sequence[int]) -> Scores:
        gold = gold_labels(examples)
        return {"f1": macro_f1(gold, predictions), "accuracy": accuracy(gold, predictions)}
