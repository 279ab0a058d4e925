"""`finetune submit`: predictions on the test sets as the leaderboards want to read them, checked before they leave.

Russian SuperGLUE takes a zip with one file of JSON lines a task, sorted by `idx`, each task with its own
label words, MuSeRC nested by passage and question. RuCoLA takes a CSV file `id,acceptable`; it goes into
the zip and, for its own leaderboard, beside it.
"""

from __future__ import annotations

import csv
import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import BadInput, OperationFailed
from finetune.labels import LABEL_WORDS
from finetune.rows import read_rows
from finetune.run_directory import PREDICTIONS, find_summaries, write_text
from finetune.tasks import SUPERGLUE

RUCOLA = "RuCoLA"
LEADERBOARD = (*(task.layout.task for task in SUPERGLUE), RUCOLA)
# items of the published test sets (MuSeRC: passages); other counts are told, for the data may be older or newer
PUBLISHED_ITEMS = {
    "LiDiRus": 1104, "RCB": 438, "PARus": 500, "MuSeRC": 322, "TERRa": 3198, "RUSSE": 18892, "RWSD": 154,
    "DaNetQA": 805, "RuCoS": 7257, "RuCoLA": 2789,
}  # fmt: skip

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Submission:
    """What was written, and what a person should know before handing it in."""

    files: dict[str, str]
    items: dict[str, int]
    seeds: dict[str, int]
    warnings: list[str]


def submit(runs: Path, output: Path, seed: int | None = None) -> Submission:
    """Write the zip from the runs below a directory; by default of each task's best seed on validation.

    Raises `BadInput` where two runs are of one task, a run has no predictions on the test set, or these
    have other counts, ids or labels than they should.
    """
    chosen = _one_run_a_task(runs)
    submission = Submission({}, {}, {}, [])
    for task in (name for name in LEADERBOARD if name in chosen):
        path, summary = chosen[task]
        number = _best_seed(summary) if seed is None else seed
        records = _test_predictions(task, path / f"seed-{number}", summary)
        items = submission_items(task, records)
        check_items(task, items)
        name = f"{task}.csv" if task == RUCOLA else f"{task}.jsonl"
        submission.files[name] = to_csv(items) if task == RUCOLA else to_json_lines(items)
        submission.items[task], submission.seeds[task] = len(items), number
    submission.warnings.extend(_warnings(submission.items))
    _write(output, submission.files)
    return submission


def submission_items(task: str, records: Sequence[Record]) -> list[dict[str, Any]]:
    """Predictions in the leaderboard's form, sorted by id."""
    if task == "MuSeRC":
        return _nested_by_passage(records)
    key = "id" if task == RUCOLA else "idx"
    for record in records:
        _check_id(task, key, record)
    return sorted((dict(record) for record in records), key=lambda record: record[key])


def check_items(task: str, items: Sequence[Record]) -> None:
    """`BadInput` unless ids are different numbers and labels are the task's words, of the type it wants."""
    key, label = ("id", "acceptable") if task == RUCOLA else ("idx", "label")
    seen: set[int] = set()
    for item in items:
        _check_id(task, key, item)
        if item[key] in seen:
            raise BadInput(f"{task}: {key} {item[key]} occurs twice")
        seen.add(item[key])
        for value in _labels_of(task, item, label):
            _check_label(task, item[key], value)


def _check_id(task: str, key: str, item: Record) -> None:
    if type(item.get(key)) is not int:
        raise BadInput(f"{task}: {key} {item.get(key)!r} is not a whole number")


def to_json_lines(items: Sequence[Record]) -> str:
    return "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)


def to_csv(items: Sequence[Record]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, ("id", "acceptable"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(items)
    return text.getvalue()


def _one_run_a_task(runs: Path) -> dict[str, tuple[Path, dict[str, Any]]]:
    chosen: dict[str, tuple[Path, dict[str, Any]]] = {}
    for path, summary in find_summaries(runs):
        task = summary["task"]
        if task not in LEADERBOARD:
            continue
        if task in chosen:
            raise BadInput(
                f"{task}: two runs below {runs}, {chosen[task][0]} and {path}: give --runs a directory with one"
            )
        chosen[task] = path, summary
    if not chosen:
        raise BadInput(f"--runs {runs}: no run of a leaderboard's task below it")
    return chosen


def _best_seed(summary: Mapping[str, Any]) -> int:
    return int(max(summary["seeds"], key=lambda result: (result["chosen"], -result["seed"]))["seed"])


def _test_predictions(task: str, seed: Path, summary: Mapping[str, Any]) -> list[Record]:
    path = seed / PREDICTIONS / "test.jsonl"
    expected = summary["examples"].get("test")
    if expected is None:
        raise BadInput(f"{task}: the run had no test file; put it beside the others and run again elsewhere")
    if not path.is_file():
        raise BadInput(f"{task}: {path} is missing: was this seed run?")
    records = [row.values for row in read_rows(path, task)]
    if len(records) != expected:
        raise BadInput(f"{task}: {path} has {len(records)} predictions, the test set {expected} items")
    return records


def _nested_by_passage(records: Sequence[Record]) -> list[dict[str, Any]]:
    passages: dict[int, dict[int, list[dict[str, Any]]]] = {}
    for record in records:
        idx = record["idx"]
        answers = passages.setdefault(idx["passage"], {}).setdefault(idx["question"], [])
        answers.append({"idx": idx["answer"], "label": record["label"]})
    return [
        {
            "idx": passage,
            "passage": {"questions": [{"idx": q, "answers": answers} for q, answers in questions.items()]},
        }
        for passage, questions in sorted(passages.items())
    ]


def _labels_of(task: str, item: Record, label: str) -> list[Any]:
    if task != "MuSeRC":
        return [item.get(label)]
    return [answer["label"] for question in item["passage"]["questions"] for answer in question["answers"]]


def _check_label(task: str, idx: int, value: Any) -> None:
    if task == "RuCoS":
        if not isinstance(value, str) or not value.strip():
            raise BadInput(f"{task}: item {idx} has no answer text")
        return
    allowed = LABEL_WORDS[task].submission
    if not any(type(value) is type(word) and value == word for word in allowed):
        raise BadInput(
            f"{task}: item {idx} has the label {value!r}, not one of {', '.join(map(repr, allowed))}"
        )


def _warnings(items: Mapping[str, int]) -> list[str]:
    missing = [task for task in LEADERBOARD if task not in items and task != RUCOLA]
    warnings = []
    if missing and set(items) != {RUCOLA}:
        warnings.append(f"the leaderboard wants all nine tasks; not in it: {', '.join(missing)}")
    warnings += [
        f"{task}: {count} items, the published test set has {PUBLISHED_ITEMS[task]}"
        for task, count in items.items()
        if count != PUBLISHED_ITEMS[task]
    ]
    return warnings


def _write(output: Path, files: Mapping[str, str]) -> None:
    temporary = output.with_name(f".{output.name}.writing")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        os.replace(temporary, output)
    except OSError as error:
        raise OperationFailed(f"{output} cannot be written: {error.strerror or error}") from None
    if f"{RUCOLA}.csv" in files:
        write_text(output.with_name(f"{RUCOLA}.csv"), files[f"{RUCOLA}.csv"])
