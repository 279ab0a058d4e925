"""Which entity of a passage stands behind the placeholder of a query: every mention is scored where it stands.

A passage longer than the model is read in overlapping windows, each behind the whole query. The loss is
binary for every mention of a window, so that windows without the answer teach something too. A candidate
(one spelling of an entity) scores as its best mention.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tokenizers import Encoding
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.modeling_outputs import SequenceClassifierOutput

from finetune.encoder import Encoder
from finetune.head import Collate, Features, Head, Item, Rows, logits_of, model_rows, padded
from finetune.pooling import hidden_states, mean_of_spans
from finetune.token_spans import TokenRange, is_whole, tokens_of_span

_QUERY, _PASSAGE = 0, 1
_NO_LABEL = -1.0


@dataclass(frozen=True)
class Mention:
    """Characters `start:end` of the passage, and the number of the candidate they name."""

    start: int
    end: int
    candidate: int


@dataclass(frozen=True)
class EntityExample:
    """`right` holds the numbers of the candidates that answer the query, None if hidden.

    `answers` are the gold answers' texts, which a candidate need not equal letter by letter.
    """

    idx: Any
    passage: str
    query: str
    placeholder: tuple[int, int]
    candidates: tuple[str, ...]
    mentions: tuple[Mention, ...]
    right: frozenset[int] | None
    answers: tuple[str, ...]


class MentionScorer(nn.Module):
    """Encoder, and a two-layer score over [mention, placeholder, product]."""

    accepts_loss_kwargs = False

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        width: int = encoder.config.hidden_size  # type: ignore[union-attr, assignment]
        self.score = nn.Sequential(
            nn.Dropout(0.1), nn.Linear(3 * width, width), nn.GELU(), nn.Linear(width, 1)
        )

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        mentions: torch.Tensor,
        placeholder: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
    ) -> SequenceClassifierOutput:
        """Token ranges `mentions` [B, S, 2] (empty: padding) and `placeholder` [B, 1, 2]; logits [B, S]."""
        hidden_BLD = hidden_states(self.encoder, input_ids, attention_mask, token_type_ids)
        mention_BSD = mean_of_spans(hidden_BLD, mentions)
        place_BSD = mean_of_spans(hidden_BLD, placeholder).expand_as(mention_BSD)
        logits = self.score(torch.cat((mention_BSD, place_BSD, mention_BSD * place_BSD), -1)).squeeze(-1)
        loss = None
        if labels is not None:
            real = labels != _NO_LABEL
            each = nn.functional.binary_cross_entropy_with_logits(
                logits.float(), labels.clamp(min=0), reduction="none"
            )
            loss = (each * real).sum() / real.sum().clamp(min=1)
        return SequenceClassifierOutput(loss=loss, logits=logits)


class EntityHead(Head[EntityExample]):
    """Entity scoring. Scores are one number a candidate; -inf for one no window could hold."""

    def build(self, encoder: Encoder, labels: Sequence[str]) -> nn.Module:
        return MentionScorer(encoder.bare())

    def features(
        self, examples: Sequence[EntityExample], tokenizer: PreTrainedTokenizerFast, max_length: int
    ) -> Features:
        rows: Rows = []
        numbers: list[int] = []
        notes: Counter[str] = Counter()
        for number, example in enumerate(examples):
            windows = self._windows(example, tokenizer, max_length)
            if len(windows) > 1:
                notes["passages read in several windows"] += 1
            rows += windows
            numbers += [number] * len(windows)
        return Features(rows, numbers, notes)

    def _windows(self, example: EntityExample, tokenizer: PreTrainedTokenizerFast, max_length: int) -> Rows:
        query, place = _with_mask(example, tokenizer)
        query_length = len(tokenizer(query, add_special_tokens=False, truncation=True,
                                     max_length=max_length // 2)["input_ids"])  # fmt: skip
        if query_length >= max_length // 2:
            query, place = _around(query, place, max_length)
        encodings = tokenizer(
            [query],
            [example.passage],
            truncation="only_second",
            max_length=max_length,
            stride=max_length // 8,
            return_overflowing_tokens=True,
        )
        windows = encodings.encodings
        kept = _mentions_of_windows(example.mentions, windows)
        rows = []
        for row, encoding, inside in zip(model_rows(encodings, tokenizer), windows, kept, strict=True):
            if not inside:
                continue
            row["mentions"] = [tokens for tokens, _ in inside]
            row["candidates"] = [candidate for _, candidate in inside]
            row["placeholder"] = [tokens_of_span(encoding, _QUERY, *place) or (0, 1)]
            if example.right is not None:
                row["labels"] = [float(candidate in example.right) for _, candidate in inside]
            rows.append(row)
        return rows

    def collate(self, tokenizer: PreTrainedTokenizerFast) -> Collate:
        def collate(rows: Rows) -> dict[str, torch.Tensor]:
            batch = padded(rows, tokenizer)
            most = max(len(row["mentions"]) for row in rows)
            batch["mentions"] = torch.tensor(
                [[*row["mentions"], *[(0, 0)] * (most - len(row["mentions"]))] for row in rows]
            )
            batch["placeholder"] = torch.tensor([row["placeholder"] for row in rows])
            if all("labels" in row for row in rows):
                batch["labels"] = torch.tensor(
                    [[*row["labels"], *[_NO_LABEL] * (most - len(row["labels"]))] for row in rows]
                )
            return batch

        return collate

    def scores(self, outputs: Any, features: Features, examples: Sequence[EntityExample]) -> list[np.ndarray]:
        scores = [np.full(len(example.candidates), -np.inf) for example in examples]
        for row, number, logits_S in zip(features.rows, features.example, logits_of(outputs), strict=True):
            candidates = row["candidates"]
            np.maximum.at(scores[number], candidates, logits_S[: len(candidates)])
        return scores

    def items(self, example: EntityExample) -> list[Item]:
        start, end = example.placeholder

        def item(number: int, candidate: str) -> Item:
            filled = example.query[:start] + candidate + example.query[end:]
            target = None if example.right is None else int(number in example.right)
            return Item(example.passage, filled, target)

        return [item(number, candidate) for number, candidate in enumerate(example.candidates)]

    def scores_of_items(self, example: EntityExample, probabilities_NK: np.ndarray) -> np.ndarray:
        return probabilities_NK[:, -1]

    def majority_scores(self, example: EntityExample, counts: Counter[int], classes: int) -> np.ndarray:
        """The entity the passage names most often; of equals the first."""
        named = Counter(mention.candidate for mention in example.mentions)
        return np.array([float(named[number]) for number in range(len(example.candidates))])


def _mentions_of_windows(
    mentions: Sequence[Mention], windows: Sequence[Encoding]
) -> list[list[tuple[TokenRange, int]]]:
    """Token range and candidate of the mentions in each window; one cut by a window's edge counts in the
    windows that hold all of it, and in those that hold a part only where none does."""
    kept: list[list[tuple[TokenRange, int]]] = [[] for _ in windows]
    for mention in mentions:
        span = (mention.start, mention.end)
        found = [(i, tokens_of_span(window, _PASSAGE, *span)) for i, window in enumerate(windows)]
        seen = [(i, tokens) for i, tokens in found if tokens is not None]
        whole = [(i, tokens) for i, tokens in seen if is_whole(windows[i], tokens, *span)]
        for i, tokens in whole or seen:
            kept[i].append((tokens, mention.candidate))
    return kept


def _with_mask(example: EntityExample, tokenizer: PreTrainedTokenizerFast) -> tuple[str, tuple[int, int]]:
    """The query with the tokenizer's mask in the place of the placeholder, which pre-training has made known."""
    start, end = example.placeholder
    mask = tokenizer.mask_token or example.query[start:end]
    return example.query[:start] + mask + example.query[end:], (start, start + len(mask))


def _around(query: str, place: tuple[int, int], max_length: int) -> tuple[str, tuple[int, int]]:
    """A query that would leave no room for the passage, cut to the characters around its placeholder."""
    first = max(0, place[0] - max_length // 2)
    return query[first : place[1] + max_length // 2], (place[0] - first, place[1] - first)
