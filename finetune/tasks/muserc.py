"""MuSeRC: which answers to a question about a passage are right? Any number of them may be."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from finetune.heads.sequence import SequenceHead, TextExample
from finetune.labels import LABEL_WORDS
from finetune.metrics import f1_of_class
from finetune.rows import Row
from finetune.superglue import superglue_layout
from finetune.task import LabelledTask, Scores, gold_labels

_SENTENCE_NUMBER = re.compile(r"\s*\(\d+\)\s*")
_RIGHT = 1


@dataclass(frozen=True)
class AnswerId:
    """Numbers of passage, question and answer, as the file has them."""

    passage: int
    question: int
    answer: int


class MuSeRC(LabelledTask[TextExample]):
    """Every answer is a pair (passage, question and answer) in two classes.

    F1a is the F1 of "right" over all answers, EM the share of questions all of whose answers are classed
    right. Sentence numbers "(1) …" are taken out of the passage: they mean nothing to an encoder.
    """

    layout = superglue_layout("MuSeRC")
    words = LABEL_WORDS["MuSeRC"]
    head = SequenceHead()
    metric = "f1a"
    metrics = ("f1a", "em")

    def examples(self, row: Row) -> list[TextExample]:
        if row.has("paragraph"):
            return [self._flat(row)]
        idx, passage = row.integer("idx"), row.part("passage")
        text = _without_numbers(passage.text("text"))
        return [
            self._example(
                AnswerId(idx, question.integer("idx"), answer.integer("idx")),
                text,
                question.text("question"),
                answer.text("text"),
                answer.class_of("label", self.words),
            )
            for question in passage.parts("questions")
            for answer in question.parts("answers")
        ]

    def _flat(self, row: Row) -> TextExample:
        """A row of the hub's version: one answer each."""
        idx = row.part("idx")
        answer_id = AnswerId(idx.integer("paragraph"), idx.integer("question"), idx.integer("answer"))
        text = _without_numbers(row.text("paragraph"))
        label = row.class_of("label", self.words)
        return self._example(answer_id, text, row.text("question"), row.text("answer"), label)

    def _example(
        self, idx: AnswerId, passage: str, question: str, answer: str, label: int | None
    ) -> TextExample:
        return TextExample(idx, passage, f"{question} {answer}", label)

    def measure(self, examples: Sequence[TextExample], predictions: Sequence[int]) -> Scores:
        gold = gold_labels(examples)
        all_right: dict[tuple[int, int], bool] = defaultdict(lambda: True)
        for example, expected, predicted in zip(examples, gold, predictions, strict=True):
            all_right[example.idx.passage, example.idx.question] &= expected == predicted
        return {
            "f1a": f1_of_class(gold, predictions, _RIGHT),
            "em": sum(all_right.values()) / len(all_right),
        }

    def record(self, example: TextExample, prediction: int) -> dict[str, Any]:
        return {"idx": vars(example.idx), "label": self.words.submission[prediction]}


def _without_numbers(text: str) -> str:
    return _SENTENCE_NUMBER.sub(" ", text).strip()
