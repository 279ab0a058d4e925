"""Where a task's rows come from: the unpacked archive of its benchmark, or a data set of the Hugging Face hub.

A directory may be the task's own folder or the one above it: `train.jsonl` of TERRa is looked for in
`DIR` and in `DIR/TERRa`, whatever the case of the folder's name. Only the files a task names are ever read,
so derived files lying beside them (human votes on test items) cannot slip into training.
"""

from __future__ import annotations

import hashlib
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.shards import file_sha256
from finetune.errors import BadInput
from finetune.rows import Row, read_rows

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class DataLayout:
    """The files of a task, by split (any of several names), and where a hub keeps the same splits.

    `optional` splits may be absent (a test set without labels, most often), those in `hub_lacks` from a hub.
    """

    task: str
    files: Mapping[str, tuple[str, ...]]
    optional: frozenset[str] = frozenset({"test"})
    hub_config: str | None = None
    hub_splits: Mapping[str, str] = field(default_factory=dict)
    hub_lacks: frozenset[str] = frozenset()


class DataSource(ABC):
    """Rows of the splits of one task."""

    def __init__(self, layout: DataLayout) -> None:
        self.layout = layout
        self.optional = layout.optional

    @abstractmethod
    def has(self, split: str) -> bool:
        """Whether `rows(split)` would find anything; the rows may still be foreign."""

    @abstractmethod
    def rows(self, split: str) -> list[Row]:
        """All rows; `BadInput` names the file that was expected and where."""

    @abstractmethod
    def identity(self) -> dict[str, str]:
        """What tells these data from others: file names and digests, or the data set's id and fingerprints."""


class LocalFiles(DataSource):
    """Files in a directory."""

    def __init__(self, directory: Path, layout: DataLayout) -> None:
        super().__init__(layout)
        self._folders = [directory, *_folders_named(directory, layout.task)]

    def has(self, split: str) -> bool:
        return split in self.layout.files and self._find(split) is not None

    def rows(self, split: str) -> list[Row]:
        return read_rows(self.path(split), self.layout.task)

    def path(self, split: str) -> Path:
        """Where the file of a split lies; `BadInput` if it is nowhere it could be."""
        found = self._find(split)
        if found is None:
            first, names = self._folders[0], " or ".join(self.layout.files[split])
            raise BadInput(
                f"{self.layout.task}: {names} is neither in {first} nor in {first / self.layout.task}: "
                "give --data-dir the unpacked archive or the task's own folder"
            )
        return found

    def identity(self) -> dict[str, str]:
        found = [self._find(split) for split in self.layout.files]
        return {path.name: _digest(path) for path in found if path is not None}

    def _find(self, split: str) -> Path | None:
        names = self.layout.files[split]
        paths = (folder / name for folder in self._folders for name in names)
        return next((path for path in paths if path.exists()), None)


class HubDataset(DataSource):
    """A data set of the Hugging Face hub, its class labels turned back into words."""

    def __init__(self, name: str, layout: DataLayout) -> None:
        super().__init__(layout)
        self._name = name
        self.optional = layout.optional | layout.hub_lacks
        self._splits = _load_dataset(name, layout)

    def has(self, split: str) -> bool:
        return self._hub_split(split) in self._splits

    def rows(self, split: str) -> list[Row]:
        name = self._hub_split(split)
        if name not in self._splits:
            raise BadInput(
                f"{self.layout.task}: the data set {self._name} has no split {name!r}; "
                f"it has {', '.join(self._splits)}"
            )
        dataset = self._splits[name]
        names = {
            column: feature.names for column, feature in dataset.features.items() if hasattr(feature, "names")
        }
        place = f"{self.layout.task}: {self._name}, {name}"
        return [Row(_with_words(row, names), f"{place}, row {i}") for i, row in enumerate(dataset)]

    def identity(self) -> dict[str, str]:
        return {f"{self._name}/{split}": data._fingerprint for split, data in self._splits.items()}

    def _hub_split(self, split: str) -> str:
        return self.layout.hub_splits.get(split, split)


def open_source(location: str, layout: DataLayout) -> DataSource:
    """The source a `--data-dir` names; `BadInput` if it is neither a directory nor a data set's id."""
    path = Path(location)
    if path.is_dir():
        return LocalFiles(path, layout)
    if path.exists():
        raise BadInput(f"--data-dir {location} is a file: give the folder that holds it")
    if not _HUB_ID.fullmatch(location):
        raise BadInput(
            f"--data-dir {location} does not exist: give the folder of {layout.task}'s files, as `finetune tasks` "
            "lists them, or a data set's id of the hub, OWNER/NAME"
        )
    return HubDataset(location, layout)


def _digest(path: Path) -> str:
    """Of a file, or of all files of a folder by name."""
    if path.is_file():
        return f"sha256:{file_sha256(path)}"
    lines = [f"{file.name} {file_sha256(file)}" for file in sorted(path.iterdir()) if file.is_file()]
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"


def _folders_named(directory: Path, name: str) -> list[Path]:
    found = [path for path in directory.iterdir() if path.name.lower() == name.lower() and path.is_dir()]
    return sorted(found)


def _load_dataset(name: str, layout: DataLayout) -> Any:
    import datasets

    try:
        return datasets.load_dataset(name, layout.hub_config)
    except (OSError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput(
            f"{layout.task}: {name} is neither a directory here nor a data set that can be loaded: {reason}"
        ) from None


def _with_words(row: dict[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    def word(column: str, value: Any) -> Any:
        known = names.get(column)
        return known[value] if known and isinstance(value, int) and 0 <= value < len(known) else value

    return {column: word(column, value) for column, value in row.items()}
