"""RuCoS: which entity of a news text stands behind the placeholder of a query?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from finetune.answer_match import best_over, exact_match, normalize, token_f1
from finetune.data_source import DataSource
from finetune.heads.entity import EntityExample, EntityHead, Mention
from finetune.rows import Row
from finetune.span_repair import Span, SpanRepair
from finetune.superglue import superglue_layout
from finetune.task import Scores, Task, TaskOptions

PLACEHOLDER = "@placeholder"
_MARKS = ("@header", "@highlight", "@context")


class RuCoS(Task[EntityExample]):
    """Every mention of every entity is scored where it stands; F1 of words and exact match of the answer.

    Entities may overlap one another and the answers' own spans; mentions are kept apart by their place,
    candidates by their spelling. A candidate is right if it is spelled like an answer or a mention of it
    holds one of the answers' spans.
    """

    layout = superglue_layout("RuCoS")
    head = EntityHead()
    metric = "f1"
    metrics = ("f1", "em")

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        self._repair = SpanRepair()

    @property
    def labels(self) -> Sequence[str]:
        return ("wrong", "right")

    def read(self, source: DataSource, split: str) -> list[EntityExample]:
        examples = super().read(source, split)
        self.notes = self._repair.notes()
        return examples

    def examples(self, row: Row) -> list[EntityExample]:
        if not isinstance(row.values.get("passage"), dict):
            return [self._from_hub(row)]
        passage = row.part("passage")
        text = _without_marks(passage.text("text"))
        given = [(item.integer("start"), item.integer("end")) for item in passage.parts("entities")]
        spans = self._repaired(text, given)
        questions = row.parts("qas")
        return [self._example(row, question, text, spans, len(questions)) for question in questions]

    def _repaired(self, text: str, given: Sequence[Span]) -> list[Span]:
        repaired = [self._repair.of_text(text, *span) for span in given]
        empty = sum(start == end for start, end in repaired)
        if empty:
            self._repair.counts["of punctuation only, left out"] += empty
        return sorted({(start, end) for start, end in repaired if start < end})

    def _example(
        self, row: Row, question: Row, text: str, spans: Sequence[Span], questions: int
    ) -> EntityExample:
        # the leaderboard's items are the rows: their numbers, not those of the questions, are asked for
        idx = row.integer("idx") if questions == 1 else question.integer("idx")
        answers = answer_spans = None
        if question.has("answers"):
            parts = question.parts("answers")
            answers = tuple(part.text("text") for part in parts)
            given = [(part.integer("start"), part.integer("end")) for part in parts]
            answer_spans = [self._repair.of_text(text, *span) for span in given]
        return _build(question, idx, text, question.text("query"), spans, answers, answer_spans)

    def _from_hub(self, row: Row) -> EntityExample:
        """A row of the hub's version: entities and answers are texts without places."""
        text, idx = _without_marks(row.text("passage")), row.part("idx")
        spans = {span for entity in row.values.get("entities") or () for span in _occurrences(text, entity)}
        answers = row.values.get("answers")
        return _build(
            row,
            idx.integer("query"),
            text,
            row.text("query"),
            sorted(spans),
            tuple(answers) if answers else None,
            [],
        )

    def is_hidden(self, example: EntityExample) -> bool:
        return example.right is None

    def decide(self, examples: Sequence[EntityExample], scores: Sequence[np.ndarray]) -> list[str]:
        return [
            example.candidates[int(np.argmax(scores_C))] if example.candidates else ""
            for example, scores_C in zip(examples, scores, strict=True)
        ]

    def measure(self, examples: Sequence[EntityExample], predictions: Sequence[str]) -> Scores:
        pairs = list(zip(examples, predictions, strict=True))
        return {
            "f1": float(np.mean([best_over(token_f1, p, e.answers) for e, p in pairs])),
            "em": float(np.mean([best_over(exact_match, p, e.answers) for e, p in pairs])),
        }

    def record(self, example: EntityExample, prediction: str) -> dict[str, Any]:
        return {"idx": example.idx, "label": prediction}


def _build(
    row: Row,
    idx: int,
    text: str,
    query: str,
    spans: Sequence[Span],
    answers: tuple[str, ...] | None,
    answer_spans: Sequence[Span] | None,
) -> EntityExample:
    place = query.find(PLACEHOLDER)
    if place < 0:
        raise row.error(f"the query has no {PLACEHOLDER}")
    candidates = tuple(dict.fromkeys(text[start:end] for start, end in spans))
    numbers = {candidate: number for number, candidate in enumerate(candidates)}
    mentions = tuple(Mention(start, end, numbers[text[start:end]]) for start, end in spans)
    right = None
    if answers is not None:
        wanted = {normalize(answer) for answer in answers}
        right = frozenset(
            mention.candidate
            for mention in mentions
            if normalize(candidates[mention.candidate]) in wanted or _holds_one(mention, answer_spans or ())
        )
    placeholder = (place, place + len(PLACEHOLDER))
    return EntityExample(idx, text, query, placeholder, candidates, mentions, right, answers or ())


def _holds_one(mention: Mention, spans: Sequence[Span]) -> bool:
    return any(mention.start <= start and end <= mention.end for start, end in spans)


def _occurrences(text: str, entity: str) -> list[Span]:
    spans, place = [], text.find(entity) if entity else -1
    while place >= 0:
        spans.append((place, place + len(entity)))
        place = text.find(entity, place + 1)
    return spans


def _without_marks(text: str) -> str:
    """Marks and zero-width spaces become spaces of the same length, so that every offset still holds."""
    for mark in _MARKS:
        text = text.replace(mark, " " * len(mark))
    return text.replace("\u200b", " ")
