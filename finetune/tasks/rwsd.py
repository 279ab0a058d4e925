"""RWSD: does a pronoun (or another phrase) refer to the thing named?

Most systems answer "no" to everything and so equal the majority baseline; it stands beside every score.
"""

from __future__ import annotations

import re

from finetune.heads.span_pair import SpanPairExample
from finetune.labels import LABEL_WORDS
from finetune.rows import Row
from finetune.span_task import SpanPairTask
from finetune.superglue import superglue_layout

_CHUNK = re.compile(r"\S+")


class RWSD(SpanPairTask):
    """The two phrases are pooled and compared. Accuracy.

    Places are numbers of words split at spaces; where the text at that number is not the phrase, the
    nearest occurrence of the phrase is taken and counted.
    """

    layout = superglue_layout("RWSD")
    words = LABEL_WORDS["RWSD"]

    def examples(self, row: Row) -> list[SpanPairExample]:
        text = row.text("text")
        target = row.part("target") if row.has("target") else row
        spans = (self._span(target, text, 1), self._span(target, text, 2))
        label = row.class_of("label", self.words)
        return [SpanPairExample(row.integer("idx"), text, None, spans, label)]

    def _span(self, target: Row, text: str, number: int) -> tuple[int, int, int]:
        phrase = target.text(f"span{number}_text")
        place = _place_of_word(text, target, f"span{number}_index")
        return (0, *self._repair.of_phrase(text, phrase, place))


def _place_of_word(text: str, target: Row, name: str) -> int | None:
    """Character at which the word of this number begins; None where the file does not say."""
    if not target.has(name):
        return None
    starts = [match.start() for match in _CHUNK.finditer(text)]
    number = target.integer(name)
    return starts[number] if 0 <= number < len(starts) else len(text)
