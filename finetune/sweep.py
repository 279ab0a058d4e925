"""`finetune sweep`: several models on several tasks in one go, a directory each, one table at the end.

A run that fails does not stop the others: its reason stands in the outcome. Repeating the command goes on
with what is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.baselines import BASELINES
from finetune.commands import run_command
from finetune.data_source import open_source
from finetune.errors import BadInput, FinetuneError
from finetune.progress import say
from finetune.task import Task
from finetune.tasks import find_task


@dataclass(frozen=True)
class SweepRequest:
    """`data` may name several places: each task takes the first that has its files."""

    models: Sequence[str]
    tasks: Sequence[str]
    data: Sequence[str]
    output: Path
    seeds: int
    assignments: Sequence[str]
    trust_remote_code: bool = False


@dataclass(frozen=True)
class SweepOutcome:
    """Directories of finished runs, and reasons of failed ones, by `model/task`."""

    finished: dict[str, str]
    failed: dict[str, str]


def run_sweep(request: SweepRequest) -> SweepOutcome:
    """Run every model on every task; `BadInput` only for what would fail all of it."""
    kinds = _in_order([find_task(name) for name in request.tasks])
    places = {kind.layout.task: _place_of(kind, request.data) for kind in kinds}
    outcome = SweepOutcome({}, {})
    for model, folder in zip(request.models, _folder_names(request.models), strict=True):
        for kind in kinds:
            task = kind.layout.task
            output = request.output / folder / task
            source = str(request.output / folder / kind.trained_as) if kind.trained_as else model
            try:
                run_command(
                    task,
                    model if model in BASELINES else source,
                    places[task],
                    output,
                    request.seeds,
                    request.assignments,
                    trust_remote_code=request.trust_remote_code,
                )
                outcome.finished[f"{folder}/{task}"] = str(output)
            except FinetuneError as error:
                say(f"{folder}/{task}: {error}")
                outcome.failed[f"{folder}/{task}"] = str(error)
    return outcome


def _in_order(kinds: Sequence[type[Task[Any]]]) -> list[type[Task[Any]]]:
    """Diagnostics last: they need the models of another task."""
    return sorted(dict.fromkeys(kinds), key=lambda kind: kind.trained_as is not None)


def _place_of(kind: type[Task[Any]], data: Sequence[str]) -> str:
    split = next(iter(kind.layout.files))
    for place in data:
        if open_source(place, kind.layout).has(split):
            return place
    names = " or ".join(kind.layout.files[split])
    raise BadInput(f"{kind.layout.task}: {names} is in none of {', '.join(data)}")


def _folder_names(models: Sequence[str]) -> list[str]:
    """A directory name for each model: the last part of its name, numbered where two are alike."""
    return list(_numbered([re.sub(r"[^\w.-]+", "-", Path(model).name) or "model" for model in models]))


def _numbered(names: Sequence[str]) -> Iterator[str]:
    for number, name in enumerate(names):
        before = names[:number].count(name)
        yield f"{name}-{before + 1}" if before else name
