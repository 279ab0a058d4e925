"""Rows of data files, whatever their format, and the errors that name file, line and field.

JSON lines are split at line feeds only: benchmark texts contain U+2028 and other characters that
`str.splitlines` takes for line ends. A byte-order mark at the start of a file is ignored.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import BadInput
from finetune.labels import LabelWords

_CSV_FIELD_LIMIT = 1 << 24  # Python's default of 128 KiB is less than one long document


@dataclass(frozen=True)
class Row:
    """One object of a data file and where it stands, for messages.

    >>> Row({"idx": 3}, "TERRa: train.jsonl, line 4").text("premise")
    Traceback (most recent call last):
    finetune.errors.BadInput: TERRa: train.jsonl, line 4: field 'premise' is missing (found: idx)
    """

    values: Mapping[str, Any]
    place: str

    def has(self, name: str) -> bool:
        return self.values.get(name) is not None

    def text(self, name: str) -> str:
        """A string, possibly empty. Numbers are taken for text: CSV readers and hubs disagree about them."""
        value = self._required(name)
        if isinstance(value, (dict, list)):
            raise self.error(f"field {name!r} is not text")
        return str(value)

    def integer(self, name: str) -> int:
        value = self._required(name)
        try:
            return int(str(value))
        except ValueError:
            raise self.error(f"field {name!r} is {value!r}, not a whole number") from None

    def part(self, name: str) -> Row:
        """A nested object."""
        value = self._required(name)
        if not isinstance(value, Mapping):
            raise self.error(f"field {name!r} is not an object")
        return Row(value, f"{self.place}, {name}")

    def parts(self, name: str) -> list[Row]:
        """A list of nested objects."""
        value = self._required(name)
        if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
            raise self.error(f"field {name!r} is not a list of objects")
        return [Row(item, f"{self.place}, {name}[{number}]") for number, item in enumerate(value)]

    def class_of(self, name: str, words: LabelWords) -> int | None:
        """The label's class, or None where there is no label (hubs write -1 for it)."""
        value = self.values.get(name)
        if value is None or value in (-1, "-1", ""):
            return None
        found = words.class_of(value)
        if found is None:
            raise self.error(f"label {value!r} is not one of {', '.join(words.classes)}")
        return found

    def error(self, reason: str) -> BadInput:
        return BadInput(f"{self.place}: {reason}")

    def _required(self, name: str) -> Any:
        value = self.values.get(name)
        if value is None:
            found = ", ".join(map(str, self.values)) or "nothing"
            raise self.error(f"field {name!r} is missing (found: {found})")
        return value


def read_rows(path: Path, task: str) -> list[Row]:
    """All rows of a `.jsonl` or `.csv`/`.tsv` file; `BadInput` names the line that cannot be read."""
    suffix = path.suffix.lower()
    try:
        if suffix in (".csv", ".tsv"):
            rows = list(_csv_rows(path, task, "\t" if suffix == ".tsv" else ","))
        else:
            rows = list(_json_rows(path, task))
    except UnicodeDecodeError as error:
        raise BadInput(f"{task}: {path} is not UTF-8 text ({error.reason})") from None
    if not rows:
        raise BadInput(f"{task}: {path} has no rows")
    return rows


def _json_rows(path: Path, task: str) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            place = f"{task}: {path}, line {number}"
            try:
                values = json.loads(line)
            except ValueError as error:
                raise BadInput(
                    f"{place}: not a whole JSON object ({error}); is the file cut short?"
                ) from None
            if not isinstance(values, dict):
                raise BadInput(f"{place}: a JSON object is expected, not {type(values).__name__}")
            yield Row(values, place)


def _csv_rows(path: Path, task: str, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        try:
            for values in reader:
                place = f"{task}: {path}, line {reader.line_num}"
                if None in values or None in values.values():
                    expected = len(reader.fieldnames or ())
                    raise BadInput(f"{place}: not {expected} columns as in the header")
                yield Row(values, place)
        except csv.Error as error:
            raise BadInput(f"{task}: {path}, line {reader.line_num}: {error}") from None
