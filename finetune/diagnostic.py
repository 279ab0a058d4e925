"""A task that is only evaluated, with models that were fine-tuned on another: LiDiRus with those of TERRa."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from finetune.baselines import BASELINES
from finetune.data_source import open_source
from finetune.encoder import Encoder
from finetune.errors import BadInput
from finetune.fine_tuned import FineTuned, find_fine_tuned
from finetune.outcome import finish, measure_baseline, measure_floors, record_seed
from finetune.progress import say
from finetune.run import RunRequest
from finetune.run_directory import SeedDirectory, open_run_directory
from finetune.splits import Splits, read_splits
from finetune.task import TRAIN, Task
from finetune.tasks import find_task
from finetune.trained_model import load_model


def run_diagnostic(request: RunRequest) -> dict[str, Any]:
    """Measure every model of the task it is trained as that lies under `--model`; one is a seed."""
    task = request.task(request.options)
    trained_as = str(task.trained_as)
    source = open_source(request.data, task.layout)
    splits = read_splits(task, source)
    models = [] if request.model in BASELINES else find_fine_tuned(Path(request.model), trained_as)
    directory = open_run_directory(
        request.output,
        {
            "task": task.name,
            "model": request.model,
            "data": source.identity(),
            "settings": request.settings.model_dump(),
            "models": [str(model.path) for model in models],
        },
    )
    train = _training_examples(request.data, trained_as)
    floors = measure_floors(task, splits, train) if train else {}
    if not train:
        say(f"{task.name}: no training set of {trained_as} in {request.data}, so no baselines")
    started = time.time()
    if request.model in BASELINES:
        if not train:
            raise BadInput(
                f"{task.name}: the baseline {request.model} needs {trained_as}'s files in --data-dir"
            )
        results = [measure_baseline(request.model, task, splits, train, directory.seed(0))]
    else:
        results = [
            _measure(number, model, request, task, splits, directory.seed(number))
            for number, model in enumerate(models)
        ]
    return finish(directory, task, splits, results, floors, started)


def _measure(
    number: int,
    model: FineTuned,
    request: RunRequest,
    task: Task[Any],
    splits: Splits,
    directory: SeedDirectory,
) -> dict[str, Any]:
    if list(model.labels) != list(task.labels):
        raise BadInput(f"{model.path} has the labels {', '.join(model.labels)}: not those of {task.name}")
    settings = request.settings.model_copy(update={"max_length": model.max_length})
    encoder = Encoder(str(model.path), trust_remote_code=request.trust_remote_code)
    trained = load_model(task, encoder, settings, seed=0)
    decided = {split: trained.decide(examples, directory.path) for split, examples in splits.by_name.items()}
    result = {"seed": number, **record_seed(task, splits, decided, directory), "stages": [], "notes": {}}
    directory.finish(result)
    return result


def _training_examples(data: str, trained_as: str) -> list[Any]:
    """The training set of the other task from the same archive; empty if it is not there."""
    other = find_task(trained_as)()
    source = open_source(data, other.layout)
    return other.read(source, TRAIN) if source.has(TRAIN) else []
