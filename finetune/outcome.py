"""From predictions to what is kept of them: files and scores of a seed, floors, the summary of a run."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from finetune.baselines import BASELINES
from finetune.progress import say
from finetune.run_directory import RunDirectory, SeedDirectory, write_text
from finetune.splits import Splits
from finetune.summary import FORMAT, aggregate, surroundings
from finetune.task import TEST, Decided, Task


def finish(
    directory: RunDirectory,
    task: Task[Any],
    splits: Splits,
    results: Sequence[Mapping[str, Any]],
    floors: Mapping[str, Any],
    started: float,
) -> dict[str, Any]:
    """Write and return the summary."""
    scores = aggregate([result["scores"] for result in results])
    summary = {
        "format": FORMAT,
        **directory.identity,
        "labels": list(task.labels),
        "metric": task.metric,
        "metrics": list(task.metrics),
        "reported": task.reported,
        "examples": {split: len(examples) for split, examples in splits.by_name.items()},
        "notes": splits.notes,
        "scores": scores,
        "main": aggregate([{"main": {"main": result["main"]}} for result in results])["main"]["main"],
        "baselines": dict(floors),
        "seeds": list(results),
        "seconds": round(time.time() - started, 1),
        "surroundings": surroundings(),
    }
    directory.write_summary(summary)
    return summary


def measure_floors(
    task: Task[Any], splits: Splits, train: Sequence[Any]
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of both baselines on the labelled splits."""
    floors = {}
    for name, kind in BASELINES.items():
        baseline = kind(task)
        baseline.fit(train)
        decided = {split: baseline.decide(splits.by_name[split]) for split in labelled(task, splits)}
        floors[name] = task.measure_all(decided)
    return floors


def labelled(task: Task[Any], splits: Splits) -> list[str]:
    """The splits that can be measured."""
    names = [split for split in task.evaluated if split in splits.by_name]
    test = splits.by_name.get(TEST, [])
    if task.measures_test and test and not any(task.is_hidden(example) for example in test):
        names.append(TEST)
    return names


def record_seed(
    task: Task[Any], splits: Splits, decided: Mapping[str, Decided[Any]], directory: SeedDirectory
) -> dict[str, Any]:
    """Write the predictions of all splits; returns scores and findings."""
    for split, item in decided.items():
        pairs = zip(item.examples, item.predictions, strict=True)
        directory.write_predictions(split, (task.record(example, made) for example, made in pairs))
        for name, content in task.files(split, item).items():
            write_text(directory.path / name, content)
    measured = {split: decided[split] for split in labelled(task, splits)}
    scores = task.measure_all(measured)
    return {
        "scores": scores,
        "main": task.main_figure(scores[task.reported]),
        "chosen": task.main_figure(scores[task.evaluated[0]]),
        "findings": task.findings(measured),
    }


def tell_notes(name: str, notes: Mapping[str, int]) -> None:
    for note, count in notes.items():
        say(f"{name}: {note}: {count}")


def measure_baseline(
    name: str, task: Task[Any], splits: Splits, train: Sequence[Any], directory: SeedDirectory
) -> dict[str, Any]:
    """A baseline as the model of a run: one seed, nothing random about it."""
    baseline = BASELINES[name](task)
    baseline.fit(train)
    decided = {split: baseline.decide(splits.by_name[split]) for split in decided_splits(task, splits)}
    result = {"seed": 0, **record_seed(task, splits, decided, directory), "stages": [], "notes": {}}
    directory.finish(result)
    return result


def decided_splits(task: Task[Any], splits: Splits) -> list[str]:
    """The splits that a model is asked about: all but the one it learns from."""
    return [split for split in splits.by_name if split in (*task.evaluated, TEST)]
