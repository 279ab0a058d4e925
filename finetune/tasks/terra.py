"""TERRa: does the premise entail the hypothesis?"""

from __future__ import annotations

from finetune.heads.sequence import SequenceHead, TextExample
from finetune.labels import LABEL_WORDS
from finetune.rows import Row
from finetune.superglue import superglue_layout
from finetune.task import LabelledTask


class TERRa(LabelledTask[TextExample]):
    """Textual entailment in two classes, measured by accuracy."""

    layout = superglue_layout("TERRa")
    words = LABEL_WORDS["TERRa"]
    head = SequenceHead()

    def examples(self, row: Row) -> list[TextExample]:
        premise, hypothesis = row.text("premise"), row.text("hypothesis")
        return [TextExample(row.integer("idx"), premise, hypothesis, row.class_of("label", self.words))]
