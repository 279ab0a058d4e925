"""RUSSE: is a word used in the same sense in two sentences?"""

from __future__ import annotations

from finetune.heads.span_pair import SpanPairExample
from finetune.labels import LABEL_WORDS
from finetune.rows import Row
from finetune.span_task import SpanPairTask
from finetune.superglue import superglue_layout


class RUSSE(SpanPairTask):
    """The word's two occurrences are pooled and compared; their spans are repaired first. Accuracy."""

    layout = superglue_layout("RUSSE")
    words = LABEL_WORDS["RUSSE"]

    def examples(self, row: Row) -> list[SpanPairExample]:
        word, label = row.text("word"), row.class_of("label", self.words)
        sentences = (row.text("sentence1"), row.text("sentence2"))
        spans = (self._span(row, 1, sentences[0], word), self._span(row, 2, sentences[1], word))
        return [SpanPairExample(row.integer("idx"), *sentences, spans, label)]

    def _span(self, row: Row, number: int, sentence: str, word: str) -> tuple[int, int, int]:
        given = row.integer(f"start{number}"), row.integer(f"end{number}")
        return (number - 1, *self._repair.of_word(sentence, *given, word))
