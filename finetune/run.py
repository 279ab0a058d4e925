"""`finetune run`: one task, one model, several seeds; floors beside every score; a summary of everything."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from data_prep.shards import file_sha256
from finetune.baselines import BASELINES
from finetune.data_source import open_source
from finetune.encoder import Encoder
from finetune.errors import BadInput
from finetune.fine_tuned import save_fine_tuned
from finetune.progress import say
from finetune.run_directory import RunDirectory, SeedDirectory, open_run_directory, write_text
from finetune.settings import TrainingSettings
from finetune.splits import Splits, read_splits
from finetune.summary import FORMAT, aggregate, surroundings
from finetune.task import TEST, VALIDATION, Decided, Task, TaskOptions
from finetune.training import Stage, TrainedModel, load_for_training, train

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


@dataclass(frozen=True)
class RunRequest:
    """What to fine-tune on what. `model` is a directory, a hub id, or a baseline's name."""

    task: type[Task[Any]]
    model: str
    data: str
    output: Path
    seeds: Sequence[int]
    settings: TrainingSettings
    options: TaskOptions
    first_stage_data: str | None = None
    trust_remote_code: bool = False


def run_task(request: RunRequest) -> dict[str, Any]:
    """Do what is asked, or go on with it, and return the summary that was written to the output."""
    task = request.task(request.options)
    source = open_source(request.data, task.layout)
    splits = read_splits(task, source)
    first_stage, first_stage_identity = _first_stage(request, task)
    encoder = Encoder(request.model, request.settings.dropout, trust_remote_code=request.trust_remote_code)
    if request.model not in BASELINES:
        encoder.config()
        encoder.tokenizer()
    identity = _identity(request, source.identity(), first_stage_identity)
    directory = open_run_directory(request.output, identity)
    tell_notes(task.name, splits.notes)
    floors = measure_floors(task, splits)
    started = time.time()
    if request.model in BASELINES:
        results = [_baseline_seed(request.model, task, splits, directory.seed(0))]
    else:
        train_examples = _limited(splits.train, request.settings.max_train_examples)
        stages = [("", train_examples, request.settings.epochs)]
        if first_stage:
            stages.insert(0, ("first stage", first_stage, request.settings.first_stage_epochs))
        results = [
            _seed(seed, stages, encoder, task, splits, request.settings, directory.seed(seed))
            for seed in request.seeds
        ]
    return finish(directory, task, splits, results, floors, started)


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
    task: Task[Any], splits: Splits, train: Sequence[Any] | None = None
) -> dict[str, dict[str, dict[str, float]]]:
    """Scores of both baselines on the labelled splits; `train` if they learn from other examples."""
    examples = splits.train if train is None else train
    floors = {}
    for name, kind in BASELINES.items():
        baseline = kind(task)
        baseline.fit(examples)
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


def _seed(
    seed: int,
    stages: Sequence[tuple[str, Sequence[Any], float]],
    encoder: Encoder,
    task: Task[Any],
    splits: Splits,
    settings: TrainingSettings,
    directory: SeedDirectory,
) -> dict[str, Any]:
    done = directory.result()
    if done is not None:
        say(f"{task.name} seed {seed}: finished earlier")
        return done
    trained = load_for_training(task, encoder, settings, seed)
    validation = splits.by_name[VALIDATION]
    outcomes = []
    for name, examples, epochs in stages:
        stage = Stage(name, examples, epochs, directory.checkpoints(name.replace(" ", "-") or "training"))
        outcomes.append(train(trained, stage, validation, seed))
    decided = _decide_all(trained, task, splits, directory)
    result = {
        "seed": seed,
        **record_seed(task, splits, decided, directory),
        "stages": [asdict(outcome) for outcome in outcomes],
        "notes": trained.notes,
    }
    save_fine_tuned(trained, directory.model, result["findings"])
    directory.finish(result)
    return result


def _decide_all(
    trained: TrainedModel, task: Task[Any], splits: Splits, directory: SeedDirectory
) -> dict[str, Decided[Any]]:
    wanted = [split for split in splits.by_name if split in (*task.evaluated, TEST)]
    return {split: trained.decide(splits.by_name[split], directory.path) for split in wanted}


def _baseline_seed(name: str, task: Task[Any], splits: Splits, directory: SeedDirectory) -> dict[str, Any]:
    baseline = BASELINES[name](task)
    baseline.fit(splits.train)
    wanted = [split for split in splits.by_name if split in (*task.evaluated, TEST)]
    decided = {split: baseline.decide(splits.by_name[split]) for split in wanted}
    result = {"seed": 0, **record_seed(task, splits, decided, directory), "stages": [], "notes": {}}
    directory.finish(result)
    return result


def _first_stage(request: RunRequest, task: Task[Any]) -> tuple[list[Any], dict[str, str]]:
    """Training examples of the noisy set of a two-stage fine-tuning, read with the labels of the clean one."""
    if request.first_stage_data is None:
        return [], {}
    source = open_source(request.first_stage_data, task.layout)
    labels = list(task.labels)
    other = request.task(request.options)
    examples = other.read(source, "train")
    if list(other.labels) != labels:
        raise BadInput(
            f"{task.name}: --first-stage-data has the labels {', '.join(other.labels)}, "
            f"--data-dir {', '.join(labels)}: they must be the same"
        )
    tell_notes(f"{task.name}, first stage", dict(other.notes))
    return examples, source.identity()


def _limited(examples: list[Any], limit: int | None) -> list[Any]:
    if limit is None or limit >= len(examples):
        return examples
    return random.Random(0).sample(examples, limit)


def _identity(request: RunRequest, data: Mapping[str, str], first_stage: Mapping[str, str]) -> dict[str, Any]:
    return {
        "task": request.task.layout.task,
        "model": request.model,
        "model_digest": _digest_of_model(request.model),
        "data": dict(data),
        "first_stage_data": dict(first_stage),
        "settings": request.settings.model_dump(),
        "options": request.options.model_dump(),
    }


def _digest_of_model(model: str) -> str | None:
    """Digest of a local model's weights: `checkpoints/latest` may point elsewhere tomorrow."""
    files = sorted(file for pattern in WEIGHTS for file in Path(model).glob(pattern))
    if not files:
        return None
    lines = [f"{file.name} {file_sha256(file)}" for file in files]
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"
