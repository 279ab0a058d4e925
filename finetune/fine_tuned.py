"""A fine-tuned model on disk: an ordinary Hugging Face directory, and `finetune.json` that says what it is of.

Models with a head of the Auto classes are saved whole. Of the others (spans, entities) the encoder is saved
as a Hugging Face model and the head beside it in `head.safetensors`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from transformers import PreTrainedTokenizerFast

from data_prep.tokenizer import save_tokenizer
from finetune.errors import BadInput
from finetune.heads.sequence import SequenceHead
from finetune.run_directory import read_json, write_json
from finetune.tasks import find_task
from finetune.trained_model import TrainedModel

MARKER, HEAD = "finetune.json", "head.safetensors"
_ENCODER = "encoder."


@dataclass(frozen=True)
class FineTuned:
    """What `finetune.json` says of a directory."""

    path: Path
    task: str
    labels: tuple[str, ...]
    max_length: int
    findings: dict[str, Any]


def save_fine_tuned(trained: TrainedModel, directory: Path, findings: Mapping[str, Any]) -> None:
    """Write model, tokenizer and marker; the marker last."""
    model, tokenizer = trained.model, trained.tokenizer
    if hasattr(model, "save_pretrained"):
        model.save_pretrained(directory)  # type: ignore[operator]
    else:
        model.encoder.save_pretrained(directory)  # type: ignore[union-attr, operator]
        head = {name: value for name, value in model.state_dict().items() if not name.startswith(_ENCODER)}
        save_file({name: value.contiguous() for name, value in head.items()}, directory / HEAD)
    if type(tokenizer) is PreTrainedTokenizerFast:
        save_tokenizer(tokenizer, directory)
    else:
        tokenizer.save_pretrained(str(directory))
    write_json(
        directory / MARKER,
        {
            "task": trained.task.name,
            "labels": list(trained.task.labels),
            "max_length": trained.max_length,
            "findings": dict(findings),
        },
    )


def read_fine_tuned(directory: Path) -> FineTuned:
    """The marker of a directory written by `save_fine_tuned`; `BadInput` if it is none."""
    content = read_json(directory / MARKER)
    if content is None:
        raise BadInput(
            f"{directory} holds no fine-tuned model ({MARKER} is missing): give seed-N/model of a run"
        )
    try:
        return FineTuned(
            directory,
            str(content["task"]),
            tuple(content["labels"]),
            int(content["max_length"]),
            dict(content["findings"]),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(f"{directory / MARKER} is damaged: {error!r}") from None


def read_classifier(directory: Path) -> FineTuned:
    """The same of a classifier of texts; `BadInput` for other models, in whose place a head would be drawn anew."""
    marker = read_fine_tuned(directory)
    if not isinstance(find_task(marker.task)().head, SequenceHead):
        raise BadInput(
            f"{directory} is a model of {marker.task}: give one that was fine-tuned to classify texts"
        )
    return marker


def find_fine_tuned(path: Path, task: str) -> list[FineTuned]:
    """All fine-tuned models of a task below a path, in order; `BadInput` if there is none."""
    markers = [path / MARKER] if (path / MARKER).is_file() else sorted(path.glob(f"**/seed-*/model/{MARKER}"))
    found = [read_fine_tuned(marker.parent) for marker in markers]
    chosen = [model for model in found if model.task == task]
    if not chosen:
        raise BadInput(
            f"--model {path}: no model fine-tuned on {task} there; run `finetune run {task}` first"
        )
    return chosen
