"""The output of one `finetune run`: what it is of, its seeds, its summary.

    OUTPUT/run.json            task, model, settings, digests of the data: what the directory is of
    OUTPUT/seed-0/model/       the best checkpoint with its tokenizer
    OUTPUT/seed-0/predictions/ one JSON line an item, for every split
    OUTPUT/seed-0/result.json  scores of the seed: written last, so a seed with it is finished
    OUTPUT/summary.json        everything, when all seeds are done

The same command again goes on where it was interrupted; another run's directory is refused, not overwritten.
Files appear whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from finetune.errors import BadInput, OperationFailed

RUN, RESULT, SUMMARY = "run.json", "result.json", "summary.json"
_SUMMARY_KEYS = {"task", "model", "seeds", "scores", "main", "reported", "metrics", "baselines", "examples"}
MODEL, PREDICTIONS, CHECKPOINTS = "model", "predictions", "checkpoints"


class SeedDirectory:
    """The part of the output that belongs to one seed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    @property
    def model(self) -> Path:
        return self.path / MODEL

    def checkpoints(self, stage: str) -> Path:
        return self.path / CHECKPOINTS / stage

    def result(self) -> dict[str, Any] | None:
        """What a finished seed came to; None while it is not finished."""
        return read_json(self.path / RESULT)

    def write_predictions(self, split: str, records: Iterable[Mapping[str, Any]]) -> None:
        lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        write_text(self.path / PREDICTIONS / f"{split}.jsonl", "".join(lines))

    def finish(self, result: Mapping[str, Any]) -> None:
        """Record the result and drop the checkpoints that training would resume from."""
        write_json(self.path / RESULT, result)
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)


class RunDirectory:
    """The whole output of one run; made or reopened by `open_run_directory`."""

    def __init__(self, path: Path, identity: Mapping[str, Any]) -> None:
        self.path, self.identity = path, identity

    def seed(self, seed: int) -> SeedDirectory:
        return SeedDirectory(self.path / f"seed-{seed}")

    def write_summary(self, summary: Mapping[str, Any]) -> Path:
        write_json(self.path / SUMMARY, summary)
        return self.path / SUMMARY


def open_run_directory(path: Path, identity: Mapping[str, Any]) -> RunDirectory:
    """Begin a run's output, or go on with it; `BadInput` if the directory holds something else."""
    identity = json.loads(json.dumps(identity))
    if path.exists() and not path.is_dir():
        raise BadInput(f"--output {path} is a file")
    known = read_json(path / RUN)
    if known is None:
        if path.is_dir() and any(path.iterdir()):
            raise BadInput(f"--output {path} is not empty and holds no run of this command: choose another")
        write_json(path / RUN, identity)
    elif known != identity:
        raise BadInput(
            f"--output {path} holds another run ({_difference(known, identity)}): choose another directory"
        )
    return RunDirectory(path, identity)


def find_summaries(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """All summaries below a directory, each with the directory it lies in, in order of paths."""
    if not root.is_dir():
        raise BadInput(f"--runs {root} is not a directory")
    found = []
    for path in sorted(root.rglob(SUMMARY)):
        summary = read_json(path)
        if summary is not None and summary.keys() >= _SUMMARY_KEYS:
            found.append((path.parent, summary))
    if not found:
        raise BadInput(f"--runs {root}: no {SUMMARY} of a finished `finetune run` below it")
    return found


def read_json(path: Path) -> dict[str, Any] | None:
    """An object from a file; None if the file is not there. `BadInput` if it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        raise BadInput(f"{path} is damaged ({error}): delete it or choose another directory") from None
    if not isinstance(content, dict):
        raise BadInput(f"{path} does not hold a JSON object: delete it or choose another directory")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all; `OperationFailed` says why it could not be written."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise OperationFailed(f"{path} cannot be written: {error.strerror or error}") from None


def _difference(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    for key in sorted({*known, *wanted}):
        before, now = known.get(key), wanted.get(key)
        if before == now:
            continue
        if isinstance(before, dict) and isinstance(now, dict):
            return f"{key}: {_difference(before, now)}"
        return f"{key} {before!r} there, {now!r} here"
    return "nothing"
