"""qa: answers as pieces of a text, over SQuAD 1.1 or 2.0 JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.answer_match import best_over, exact_match, token_f1
from finetune.data_source import DataLayout, DataSource, LocalFiles
from finetune.errors import BadInput
from finetune.heads.answer import AnswerExample, AnswerHead, ScoredAnswer
from finetune.rows import Row
from finetune.splits import OPTIONAL, splits_named
from finetune.task import TRAIN, VALIDATION, Decided, Scores, Task, TaskOptions


class Qa(Task[AnswerExample]):
    """Exact match and F1 of words, best over the gold answers; questions without an answer count as "" answers.

    Whether a question may have no answer is learned from the training set, and kept with the model: other splits
    are answered the same way whether their answers are hidden or not.
    """

    layout = DataLayout("qa", splits_named(".json"), OPTIONAL)
    head = AnswerHead()
    metric = "f1"
    metrics = ("f1", "em")
    measures_test = True

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        self._may_abstain = False

    @property
    def labels(self) -> Sequence[str]:
        return ()

    def read(self, source: DataSource, split: str) -> list[AnswerExample]:
        examples = (
            self._from_squad(source, split) if isinstance(source, LocalFiles) else super().read(source, split)
        )
        if split == TRAIN:
            self._may_abstain = any(example.answers == () for example in examples)
        return examples

    def _from_squad(self, source: LocalFiles, split: str) -> list[AnswerExample]:
        rows = list(_squad_rows(source.path(split)))
        if not rows:
            raise BadInput(f"{self.name}: {source.path(split)} has no questions")
        return [example for row in rows for example in self.examples(row)]

    def examples(self, row: Row) -> list[AnswerExample]:
        context = row.text("context")
        answers = None
        if row.has("answers"):
            answers = tuple(_answers(row))
            for text, start in answers:
                if context[start : start + len(text)] != text:
                    raise row.error(f"answer {text!r} does not stand at character {start} of its context")
        return [AnswerExample(row.text("id"), row.text("question"), context, answers)]

    def is_hidden(self, example: AnswerExample) -> bool:
        return example.answers is None

    def decide(self, examples: Sequence[AnswerExample], scores: Sequence[list[ScoredAnswer]]) -> list[str]:
        return [next((a.text for a in ranked if a.text or self._may_abstain), "") for ranked in scores]

    def measure(self, examples: Sequence[AnswerExample], predictions: Sequence[str]) -> Scores:
        golds = [[text for text, _ in example.answers or ()] or [""] for example in examples]
        pairs = list(zip(predictions, golds, strict=True))
        return {
            "f1": float(np.mean([best_over(token_f1, p, g) for p, g in pairs])),
            "em": float(np.mean([best_over(exact_match, p, g) for p, g in pairs])),
        }

    def findings(self, decided: Mapping[str, Decided[AnswerExample]]) -> dict[str, Any]:
        """Whether the model may say that there is no answer."""
        return {"may_abstain": self._may_abstain}

    def record(self, example: AnswerExample, prediction: str) -> dict[str, Any]:
        return {"id": example.idx, "answer": prediction}

    def files(self, split: str, decided: Decided[AnswerExample]) -> dict[str, str]:
        """What SQuAD's own evaluation script reads: answers by question id."""
        answers = {e.idx: p for e, p in zip(decided.examples, decided.predictions, strict=True)}
        name = "predictions.json" if split == VALIDATION else f"predictions-{split}.json"
        return {name: json.dumps(answers, ensure_ascii=False, indent=1) + "\n"}


def _answers(row: Row) -> Iterator[tuple[str, int]]:
    given = row.values["answers"]
    if isinstance(given, dict):  # the hub keeps a table where the file keeps a list
        yield from zip(given["text"], given["answer_start"], strict=True)
        return
    for answer in row.parts("answers"):
        yield answer.text("text"), answer.integer("answer_start")


def _squad_rows(path: Path) -> Iterator[Row]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise BadInput(f"qa: {path} is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise BadInput(f"qa: {path} is not SQuAD's JSON: an object with 'data' is expected")
    for article in Row(content, f"qa: {path}").parts("data"):
        for paragraph in article.parts("paragraphs"):
            for question in paragraph.parts("qas"):
                yield Row({**question.values, "context": paragraph.text("context")}, question.place)
