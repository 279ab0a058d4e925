"""What all tasks of Russian SuperGLUE share: names of files, of hub configurations and of splits."""

from __future__ import annotations

from finetune.data_source import DataLayout
from finetune.task import TEST, TRAIN, VALIDATION


def superglue_layout(task: str) -> DataLayout:
    """`train.jsonl`, `val.jsonl` and (optionally) `test.jsonl` in a folder named like the task."""
    return DataLayout(
        task,
        {TRAIN: ("train.jsonl",), VALIDATION: ("val.jsonl",), TEST: ("test.jsonl",)},
        hub_config=task.lower(),
    )
