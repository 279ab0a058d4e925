"""`finetune run`: one task, one model, several seeds; floors beside every score; a summary of everything."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from finetune.baselines import BASELINES
from finetune.data_source import open_source
from finetune.encoder import Encoder
from finetune.errors import BadInput
from finetune.fine_tuned import save_fine_tuned
from finetune.model_digest import digest_of_model
from finetune.outcome import decided_splits, finish, measure_baseline, measure_floors, record_seed, tell_notes
from finetune.progress import say
from finetune.run_directory import SeedDirectory, open_run_directory
from finetune.settings import TrainingSettings
from finetune.splits import Splits, check_labels, read_splits
from finetune.task import TRAIN, VALIDATION, Task, TaskOptions
from finetune.trained_model import load_model
from finetune.training import Stage, train


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
    floors = measure_floors(task, splits, splits.train)
    started = time.time()
    if request.model in BASELINES:
        results = [measure_baseline(request.model, task, splits, splits.train, directory.seed(0))]
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
    trained = load_model(task, encoder, settings, seed)
    validation = splits.by_name[VALIDATION]
    outcomes = []
    for name, examples, epochs in stages:
        stage = Stage(name, examples, epochs, directory.checkpoints(name.replace(" ", "-") or "training"))
        outcomes.append(train(trained, stage, validation, seed))
    decided = {
        split: trained.decide(splits.by_name[split], directory.path) for split in decided_splits(task, splits)
    }
    result = {
        "seed": seed,
        **record_seed(task, splits, decided, directory),
        "stages": [asdict(outcome) for outcome in outcomes],
        "notes": trained.notes,
    }
    save_fine_tuned(trained, directory.model, result["findings"])
    directory.finish(result)
    return result


def _first_stage(request: RunRequest, task: Task[Any]) -> tuple[list[Any], dict[str, str]]:
    """Training examples of the noisy set of a two-stage fine-tuning, read with the labels of the clean one."""
    if request.first_stage_data is None:
        return [], {}
    source = open_source(request.first_stage_data, task.layout)
    labels = list(task.labels)
    other = request.task(request.options)
    examples = other.read(source, TRAIN)
    check_labels(other, TRAIN, examples)
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
        "model_digest": digest_of_model(request.model),
        "data": dict(data),
        "first_stage_data": dict(first_stage),
        "settings": request.settings.model_dump(),
        "options": request.options.model_dump(),
    }
