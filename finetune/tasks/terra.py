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
        label = row.class_of("label", self.words)
        return [TextExample(row.integer("idx"), row.text("premise"), row.text("hypothesis"), label)]
