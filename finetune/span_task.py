"""Tasks about two marked spans, whose places in the files are repaired before use."""

from __future__ import annotations

from finetune.data_source import DataSource
from finetune.heads.span_pair import SpanPairExample, SpanPairHead
from finetune.span_repair import SpanRepair
from finetune.task import LabelledTask, TaskOptions


class SpanPairTask(LabelledTask[SpanPairExample]):
    """The two spans are pooled and compared; what was repaired is in the notes of every reading."""

    head = SpanPairHead()

    def __init__(self, options: TaskOptions | None = None) -> None:
        super().__init__(options)
        self._repair = SpanRepair()

    def read(self, source: DataSource, split: str) -> list[SpanPairExample]:
        examples = super().read(source, split)
        self.notes = self._repair.notes()
        return examples
