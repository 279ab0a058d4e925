"""Which words a fine-tuned classifier looked at, in two ways that often disagree.

- attention: how much the last layer's classifying token attends to each word, mean over heads;
- gradient: how much each word's embedding moves the chosen class's logit (gradient times input, summed
  over the embedding, absolute).

Neither proves a cause; where both shade the same words, the model probably used them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from finetune.encoder import Encoder, longest_input
from finetune.errors import BadInput, OperationFailed
from finetune.fine_tuned import read_classifier
from finetune.rows import read_rows
from finetune.token_spans import tokens_of_span

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class TextPair:
    """A text, or two for a model of pairs."""

    first: str
    second: str | None = None


@dataclass(frozen=True)
class ShadedWord:
    """Characters `start:end` of text 0 or 1 and their shares, 1 for the text's most important word."""

    text: int
    start: int
    end: int
    attention: float
    gradient: float


@dataclass(frozen=True)
class Explanation:
    """What the model said of a text, and the words behind it."""

    texts: TextPair
    label: str
    probability: float
    words: tuple[ShadedWord, ...]


class Explainer:
    """A fine-tuned classifier that shows its words.

    >>> Explainer(Path("runs/RuCoLA/seed-0/model")).explain(TextPair("Я пошла в магазине.")).label
    '0'
    """

    def __init__(self, directory: Path, *, trust_remote_code: bool = False) -> None:
        marker = read_classifier(directory)
        encoder = Encoder(str(directory), attention="eager", trust_remote_code=trust_remote_code)
        config = encoder.config()
        self._tokenizer = encoder.tokenizer()
        self._model: Any = encoder.with_head(AutoModelForSequenceClassification, marker.labels).eval()
        self._labels = marker.labels
        self._max_length = min(marker.max_length, longest_input(config, self._tokenizer))

    def explain(self, texts: TextPair) -> Explanation:
        """Both shadings of one text."""
        encoded = self._tokenizer(
            texts.first, texts.second, truncation=True, max_length=self._max_length, return_tensors="pt"
        )
        embeddings = self._model.get_input_embeddings()(encoded["input_ids"]).detach().requires_grad_()
        rest = {name: value for name, value in encoded.items() if name != "input_ids"}
        output = self._model(inputs_embeds=embeddings, output_attentions=True, **rest)
        if not output.attentions:
            raise OperationFailed("this model's attention cannot be read: it returns none")
        chosen = int(output.logits[0].argmax())
        output.logits[0, chosen].backward()
        probability_K = output.logits[0].detach().softmax(-1)
        attention_L = output.attentions[-1][0].mean(0)[0].detach()
        gradient_L = (embeddings.grad * embeddings.detach()).sum(-1)[0].abs()
        words = self._words(texts, encoded.encodings[0], attention_L, gradient_L)
        return Explanation(texts, self._labels[chosen], float(probability_K[chosen]), tuple(words))

    def _words(
        self, texts: TextPair, encoding: Any, attention_L: torch.Tensor, gradient_L: torch.Tensor
    ) -> list[ShadedWord]:
        found = []
        for number, text in enumerate((texts.first, texts.second or "")):
            for match in _WORD.finditer(text):
                tokens = tokens_of_span(encoding, number, *match.span())
                if tokens is not None:
                    inside = slice(*tokens)
                    shares = float(attention_L[inside].sum()), float(gradient_L[inside].sum())
                    found.append((number, match.span(), shares))
        most = [max((shares[kind] for _, _, shares in found), default=0.0) or 1.0 for kind in (0, 1)]
        return [
            ShadedWord(number, *span, shares[0] / most[0], shares[1] / most[1])
            for number, span, shares in found
        ]


def read_texts(path: Path, text_field: str = "text", second_field: str | None = None) -> list[TextPair]:
    """Texts of a file: a line each (a tab before a second text), or a column of a CSV or JSONL file."""
    if not path.is_file():
        raise BadInput(f"--file {path} does not exist")
    if path.suffix.lower() in (".csv", ".tsv", ".jsonl"):
        rows = read_rows(path, "texts")
        return [
            TextPair(row.text(text_field), row.text(second_field) if second_field else None) for row in rows
        ]
    try:
        lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    except UnicodeDecodeError as error:
        raise BadInput(f"--file {path} is not UTF-8 text ({error.reason})") from None
    if not lines:
        raise BadInput(f"--file {path} has no texts")
    return [TextPair(first, second or None) for first, _, second in (line.partition("\t") for line in lines)]


def explain_texts(
    directory: Path, texts: Sequence[TextPair], *, trust_remote_code: bool = False
) -> list[Explanation]:
    """Explanations of several texts by one model."""
    explainer = Explainer(directory, trust_remote_code=trust_remote_code)
    return [explainer.explain(pair) for pair in texts]
