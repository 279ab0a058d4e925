"""The answer to a question as a piece of a text, in SQuAD's manner.

Long texts are read in overlapping windows. A window without the answer is labelled with its first token,
which also stands for "there is no answer". Scores are an n-best list of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from razdel import sentenize
from torch import nn
from transformers import AutoModelForQuestionAnswering, PreTrainedTokenizerFast

from finetune.encoder import Encoder
from finetune.head import Collate, Features, Head, Item, Rows, model_rows, padded
from finetune.token_spans import is_whole, tokens_of_span

_QUESTION, _CONTEXT = 0, 1
_BEST = 20
_LONGEST_ANSWER = 30  # tokens, as in the reference implementation of SQuAD baselines


@dataclass(frozen=True)
class AnswerExample:
    """`answers` are (text, start) pairs; empty if there is no answer, None if hidden."""

    idx: str
    question: str
    context: str
    answers: tuple[tuple[str, int], ...] | None


@dataclass(frozen=True)
class ScoredAnswer:
    """A candidate answer; an empty text says that there is none."""

    text: str
    score: float


class AnswerHead(Head[AnswerExample]):
    """The Auto class for extractive question answering. Scores are lists of `ScoredAnswer`, best first."""

    input_labels = ("start_positions", "end_positions")

    def build(self, encoder: Encoder, labels: Sequence[str]) -> nn.Module:
        return encoder.with_head(AutoModelForQuestionAnswering)

    def features(
        self, examples: Sequence[AnswerExample], tokenizer: PreTrainedTokenizerFast, max_length: int
    ) -> Features:
        limit = max_length // 2
        questions = [_shortened(example.question, tokenizer, limit) for example in examples]
        encodings = tokenizer(
            questions,
            [example.context for example in examples],
            truncation="only_second",
            max_length=max_length,
            stride=max_length // 4,
            return_overflowing_tokens=True,
        )
        rows = model_rows(encodings, tokenizer)
        numbers = list(encodings["overflow_to_sample_mapping"])
        for row, number, encoding in zip(rows, numbers, encodings.encodings, strict=True):
            row["offsets"] = [
                span if own == _CONTEXT else None
                for span, own in zip(encoding.offsets, encoding.sequence_ids, strict=True)
            ]
            if examples[number].answers is not None:
                row["answer"] = _answer_tokens(examples[number], encoding)
        return Features(rows, numbers)

    def collate(self, tokenizer: PreTrainedTokenizerFast) -> Collate:
        def collate(rows: Rows) -> dict[str, torch.Tensor]:
            batch = padded(rows, tokenizer)
            if all("answer" in row for row in rows):
                first, last = torch.tensor([row["answer"] for row in rows]).unbind(-1)
                batch |= {"start_positions": first, "end_positions": last}
            return batch

        return collate

    def scores(
        self, outputs: Any, features: Features, examples: Sequence[AnswerExample]
    ) -> list[list[ScoredAnswer]]:
        found: list[list[ScoredAnswer]] = [[] for _ in examples]
        for row, number, start_L, end_L in zip(
            features.rows, features.example, outputs[0], outputs[1], strict=True
        ):
            found[number] += _best_of_window(row, examples[number].context, start_L, end_L)
        return [_ranked(answers) for answers in found]

    def items(self, example: AnswerExample) -> list[Item]:
        """The sentences of the context; right are those that hold an answer."""

        def target(start: int, stop: int) -> int | None:
            if example.answers is None:
                return None
            return int(any(start <= place < stop for _, place in example.answers))

        sentences = sentenize(example.context)
        return [Item(example.question, piece.text, target(piece.start, piece.stop)) for piece in sentences]

    def scores_of_items(self, example: AnswerExample, probabilities_NK: np.ndarray) -> list[ScoredAnswer]:
        texts = [item.second for item in self.items(example)]
        ranked = [
            ScoredAnswer(text, float(p)) for text, p in zip(texts, probabilities_NK[:, -1], strict=True)
        ]
        return sorted(ranked, key=lambda answer: -answer.score) or [ScoredAnswer("", 0.0)]

    def majority_scores(self, example: AnswerExample, counts: Any, classes: int) -> list[ScoredAnswer]:
        """The first sentence, where answers are most often."""
        texts = [item.second for item in self.items(example)]
        return [ScoredAnswer(texts[0] if texts else "", 1.0)]


def _shortened(question: str, tokenizer: PreTrainedTokenizerFast, limit: int) -> str:
    """The question's beginning, if the whole would leave no room for a context."""
    encoding = tokenizer(question, add_special_tokens=False, return_offsets_mapping=True)
    offsets = encoding["offset_mapping"]
    return question if len(offsets) <= limit else question[: offsets[limit - 1][1]]


def _answer_tokens(example: AnswerExample, encoding: Any) -> tuple[int, int]:
    """First and last token of the first gold answer if the window holds all of it, else those of "none"."""
    if example.answers:
        text, start = example.answers[0]
        tokens = tokens_of_span(encoding, _CONTEXT, start, start + len(text))
        if tokens and is_whole(encoding, tokens, start, start + len(text)):
            return tokens[0], tokens[1] - 1
    return 0, 0


def _best_of_window(
    row: dict[str, Any], context: str, start_L: np.ndarray, end_L: np.ndarray
) -> list[ScoredAnswer]:
    offsets = row["offsets"]
    answers = [ScoredAnswer("", float(start_L[0] + end_L[0]))]
    inside = np.array(
        [i for i, span in enumerate(offsets) if span is not None and span[1] > span[0]], dtype=int
    )
    starts = inside[np.argsort(-start_L[inside])[:_BEST]]
    ends = inside[np.argsort(-end_L[inside])[:_BEST]]
    for first in starts:
        for last in ends:
            if first <= last < first + _LONGEST_ANSWER:
                text = context[offsets[first][0] : offsets[last][1]].strip()
                answers.append(ScoredAnswer(text, float(start_L[first] + end_L[last])))
    return answers


def _ranked(answers: list[ScoredAnswer]) -> list[ScoredAnswer]:
    """Best answers over all windows. "None" counts only where every window says so: by its least score."""
    none = min((answer.score for answer in answers if not answer.text), default=0.0)
    spans = sorted((answer for answer in answers if answer.text), key=lambda answer: -answer.score)[:_BEST]
    return sorted([*spans, ScoredAnswer("", none)], key=lambda answer: -answer.score)
