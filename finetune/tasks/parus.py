"""PARus: which of two events is the likelier cause or effect of a third?"""

from __future__ import annotations

from finetune.heads.choice import ChoiceExample, ChoiceHead
from finetune.labels import LABEL_WORDS
from finetune.rows import Row
from finetune.superglue import superglue_layout
from finetune.task import LabelledTask


class PARus(LabelledTask[ChoiceExample]):
    """Pairwise choice: each pair is put in the order of time, cause before effect. Measured by accuracy."""

    layout = superglue_layout("PARus")
    words = LABEL_WORDS["PARus"]
    head = ChoiceHead()

    def examples(self, row: Row) -> list[ChoiceExample]:
        premise, question = row.text("premise"), row.text("question")
        choices = (row.text("choice1"), row.text("choice2"))
        if question == "cause":
            pairs = tuple((choice, premise) for choice in choices)
        elif question == "effect":
            pairs = tuple((premise, choice) for choice in choices)
        else:
            raise row.error(f"question {question!r} is neither cause nor effect")
        return [ChoiceExample(row.integer("idx"), pairs, row.class_of("label", self.words))]
