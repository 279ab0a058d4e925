"""ner: spans of named things, over CoNLL files or folders of BRAT documents.

A span is right if its characters and its class are. Nested entities are out of reach of one tag a word:
the longest stays, the rest is counted in the log.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from finetune.brat import read_brat, to_brat
from finetune.conll import join_words, read_conll, sentence_entities
from finetune.data_source import DataLayout, DataSource, LocalFiles
from finetune.errors import BadInput
from finetune.heads.token import TokenExample, TokenHead
from finetune.metrics import precision_recall
from finetune.rows import Row
from finetune.splits import OPTIONAL, splits_named
from finetune.tags import OUTSIDE, Entity, entities_to_tags, tags_to_entities
from finetune.task import TRAIN, Decided, Scores, Task, TaskOptions

_WORD = re.compile(r"\w+|[^\w\s]")


class Ner(Task[TokenExample]):
    """Span F1: micro (over all spans), macro (mean over classes) and of every class."""

    layout = DataLayout("ner", splits_named(".conll", ".txt", ".tsv", ".bio", ""), OPTIONAL)
    metric = "f1"
    metrics = ("f1",)
    measures_test = True

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        self.head: TokenHead = TokenHead()

    @property
    def labels(self) -> Sequence[str]:
        return self.head.tags

    def read(self, source: DataSource, split: str) -> list[TokenExample]:
        if not isinstance(source, LocalFiles):
            raise BadInput("ner reads CoNLL files and BRAT folders: give --data-dir a directory")
        path = source.path(split)
        reader = self._from_brat if path.is_dir() else self._from_conll
        examples = [example for example in reader(path) if example.words]
        if not examples:
            raise BadInput(f"ner: {path} has no texts")
        if split == TRAIN:
            self._learn_tags(examples, path)
        return examples

    def _learn_tags(self, examples: Sequence[TokenExample], path: Path) -> None:
        found = sorted({entity.label for example in examples for entity in example.entities or ()})
        if not found:
            raise BadInput(f"ner: {path} names no entities, so there is nothing to learn")
        self.head.tags = [OUTSIDE, *(f"{prefix}-{label}" for label in found for prefix in "BI")]

    def _from_conll(self, path: Path) -> Iterator[TokenExample]:
        for number, (tokens, tags) in enumerate(read_conll(path)):
            text, words = join_words(tokens)
            entities = None if tags is None else tuple(sentence_entities(words, tags))
            yield TokenExample(number, text, words, entities)

    def _from_brat(self, path: Path) -> Iterator[TokenExample]:
        for document in read_brat(path, self.notes):
            words = tuple(match.span() for match in _WORD.finditer(document.text))
            yield TokenExample(document.name, document.text, words, document.entities)

    def examples(self, row: Row) -> list[TokenExample]:
        raise NotImplementedError("ner has no rows: it reads sentences and documents")

    def is_hidden(self, example: TokenExample) -> bool:
        return example.entities is None

    def decide(self, examples: Sequence[TokenExample], scores: Sequence[np.ndarray]) -> list[list[Entity]]:
        return [
            tags_to_entities(example.words, [self.head.tags[int(np.argmax(k))] for k in scores_WK])
            for example, scores_WK in zip(examples, scores, strict=True)
        ]

    def measure(self, examples: Sequence[TokenExample], predictions: Sequence[list[Entity]]) -> Scores:
        hits, predicted, gold = Counter[str](), Counter[str](), Counter[str]()
        for example, found in zip(examples, predictions, strict=True):
            expected = set(example.entities or ())
            gold.update(entity.label for entity in expected)
            predicted.update(entity.label for entity in found)
            hits.update(entity.label for entity in found if entity in expected)
        precision, recall, f1 = precision_recall(hits.total(), predicted.total(), gold.total())
        by_class = {
            label: precision_recall(hits[label], predicted[label], gold[label])[2]
            for label in sorted(gold | predicted)
        }
        scores = {"f1": f1, "precision": precision, "recall": recall}
        scores["macro f1"] = float(np.mean(list(by_class.values()))) if by_class else 0.0
        return scores | {f"f1 {label}": value for label, value in by_class.items()}

    def files(self, split: str, decided: Decided[TokenExample]) -> dict[str, str]:
        """A CoNLL file of predicted tags; for BRAT documents an .ann each as well."""
        sentences, files = [], {}
        for example, found in zip(decided.examples, decided.predictions, strict=True):
            tags = entities_to_tags(example.words, found)
            lines = [f"{example.word(number)}\t{tag}\n" for number, tag in enumerate(tags)]
            sentences.append("".join(lines))
            if isinstance(example.idx, str):
                files[f"{split}/{example.idx}.ann"] = to_brat(example.text, found)
        return files | {f"{split}.conll": "\n".join(sentences)}

    def record(self, example: TokenExample, prediction: list[Entity]) -> dict[str, Any]:
        spans = [[entity.start, entity.end, entity.label] for entity in prediction]
        return {"idx": example.idx, "text": example.text, "entities": spans}
