"""DaNetQA: a question that the passage answers by yes or no."""

from __future__ import annotations

from finetune.heads.sequence import SequenceHead, TextExample
from finetune.labels import LABEL_WORDS
from finetune.rows import Row
from finetune.superglue import superglue_layout
from finetune.task import LabelledTask


class DaNetQA(LabelledTask[TextExample]):
    """Two classes, measured by accuracy. The question goes first, so that a long passage is what gets cut."""

    layout = superglue_layout("DaNetQA")
    words = LABEL_WORDS["DaNetQA"]
    head = SequenceHead()

    def examples(self, row: Row) -> list[TextExample]:
        question, passage = row.text("question"), row.text("passage")
        return [TextExample(row.integer("idx"), question, passage, row.class_of("label", self.words))]
