"""The splits of a task: read, checked for labels, and a validation set held out where none is given."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from finetune.data_source import DataSource
from finetune.errors import BadInput
from finetune.task import TEST, TRAIN, VALIDATION, Task

OPTIONAL = frozenset({VALIDATION, TEST})
HELD_OUT_SHARE = 0.1
_HOLD_OUT_SEED = 0  # not the run's: all seeds must be measured on the same examples

E = TypeVar("E")


@dataclass(frozen=True)
class Splits:
    """Examples by split. `train` is absent for a diagnostic, `test` where there is no such file."""

    by_name: dict[str, list[Any]]
    notes: dict[str, int]

    @property
    def train(self) -> list[Any]:
        return self.by_name.get(TRAIN, [])


def splits_named(*endings: str) -> dict[str, tuple[str, ...]]:
    """File names of people's own data: `train`, `validation` (or valid, val, dev) and `test`."""
    names = {TRAIN: ("train",), VALIDATION: ("validation", "valid", "val", "dev"), TEST: ("test",)}
    return {
        split: tuple(f"{name}{ending}" for name in some for ending in endings)
        for split, some in names.items()
    }


def read_splits(task: Task[Any], source: DataSource) -> Splits:
    """Read every split the task has files for; `BadInput` names what is missing or unlabelled."""
    found: dict[str, list[Any]] = {}
    layout = source.layout
    # training first: it may teach the task its labels
    for split in sorted(layout.files, key=lambda name: name != TRAIN):
        if split in source.optional and not source.has(split):
            continue
        found[split] = task.read(source, split)
        if split == TRAIN or split in task.evaluated:
            check_labels(task, split, found[split])
    if TRAIN in found and VALIDATION not in found and VALIDATION in layout.files:
        found[TRAIN], found[VALIDATION] = hold_out(found[TRAIN])
        task.notes["examples of the training set held out for validation"] = len(found[VALIDATION])
    return Splits(found, dict(task.notes))


def hold_out(examples: Sequence[E]) -> tuple[list[E], list[E]]:
    """Nine tenths and one tenth of the examples, the same every time; `BadInput` if there are too few."""
    if len(examples) < 2:
        raise BadInput(f"{len(examples)} training example is too few to hold some out for validation")
    chosen = set(
        random.Random(_HOLD_OUT_SEED).sample(
            range(len(examples)), max(1, round(HELD_OUT_SHARE * len(examples)))
        )
    )
    kept = [example for number, example in enumerate(examples) if number not in chosen]
    return kept, [example for number, example in enumerate(examples) if number in chosen]


def check_labels(task: Task[Any], split: str, examples: Sequence[Any]) -> None:
    """`BadInput` if an example's label is hidden."""
    hidden = sum(task.is_hidden(example) for example in examples)
    if hidden:
        raise BadInput(
            f"{task.name}: {hidden} of {len(examples)} examples of the {split} split have no label: "
            "is this the right file?"
        )
