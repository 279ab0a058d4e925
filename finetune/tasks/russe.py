"""RUSSE: is a word used in the same sense in two sentences?"""

from __future__ import annotations

from finetune.data_source import DataSource
from finetune.heads.span_pair import SpanPairExample, SpanPairHead
from finetune.labels import LABEL_WORDS
from finetune.rows import Row
from finetune.span_repair import SpanRepair
from finetune.superglue import superglue_layout
from finetune.task import LabelledTask, TaskOptions


class RUSSE(LabelledTask[SpanPairExample]):
    """The word's two occurrences are pooled and compared; their spans are repaired first. Accuracy."""

    layout = superglue_layout("RUSSE")
    words = LABEL_WORDS["RUSSE"]
    head = SpanPairHead()

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        self._repair = SpanRepair()

    def read(self, source: DataSource, split: str) -> list[SpanPairExample]:
        examples = super().read(source, split)
        self.notes = self._repair.notes()
        return examples

    def examples(self, row: Row) -> list[SpanPairExample]:
        word, label = row.text("word"), row.class_of("label", self.words)
        sentences = (row.text("sentence1"), row.text("sentence2"))
        spans = (self._span(row, 1, sentences[0], word), self._span(row, 2, sentences[1], word))
        return [SpanPairExample(row.integer("idx"), *sentences, spans, label)]

    def _span(self, row: Row, number: int, sentence: str, word: str) -> tuple[int, int, int]:
        given = row.integer(f"start{number}"), row.integer(f"end{number}")
        return (number - 1, *self._repair.of_word(sentence, *given, word))
