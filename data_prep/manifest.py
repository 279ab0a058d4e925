"""``manifest.json`` of a shard folder: every shard with its SHA-256, that of its chunk list, and counts.

It may come from anybody's server: what is read of it is checked, so that no number in it can exhaust memory and no
name lead out of the folder.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from data_prep.errors import ShardError

FORMAT = "artel-shards-1"
MANIFEST = "manifest.json"
_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,200}\.arrow")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MOST_BYTES = 1 << 44  # of a shard; no more than says that a number is nonsense


@dataclass(frozen=True)
class ShardEntry:
    """One line of the manifest; ``ValueError`` for what no shard can have, since manifests come from elsewhere."""

    file: str
    source: str
    sha256: str
    bytes: int
    documents: int
    sentences: int
    tokens: int
    blocks: int
    chunks_sha256: str = ""  # none in manifests of versions that served no ranges

    def __post_init__(self) -> None:
        if not isinstance(self.file, str) or not _FILE_NAME.fullmatch(self.file):
            raise ValueError(f"shard name {self.file!r} is not a plain file name")
        if not isinstance(self.source, str) or not self.source:
            raise ValueError(f"{self.file}: source {self.source!r} is not a name")
        _require_digest(self.sha256, self.file)
        if self.chunks_sha256 != "":
            _require_digest(self.chunks_sha256, self.file)
        _require_counts(self, ("bytes", "documents", "sentences", "tokens", "blocks"))
        # every block holds a document, every document a sentence, every sentence an id, every id two bytes
        if (
            not self.blocks
            <= self.documents
            <= self.sentences
            <= self.tokens
            <= self.bytes // 2
            <= _MOST_BYTES
        ):
            raise ValueError(f"{self.file}: its counts contradict each other")


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds; ``ValueError`` for what none can."""

    tokenizer_sha256: str
    vocab_size: int
    shards: tuple[ShardEntry, ...]
    format: str = FORMAT

    def __post_init__(self) -> None:
        _require_digest(self.tokenizer_sha256, "the tokenizer")
        _require_counts(self, ("vocab_size",))
        if not self.shards:
            raise ValueError("it lists no shards")
        if len({shard.file for shard in self.shards}) < len(self.shards):
            raise ValueError("it lists a shard twice")

    @property
    def documents(self) -> int:
        return sum(shard.documents for shard in self.shards)

    @property
    def tokens(self) -> int:
        return sum(shard.tokens for shard in self.shards)

    def to_json(self) -> str:
        totals = {"documents": self.documents, "tokens": self.tokens}
        return (
            json.dumps({**asdict(self), "totals": totals}, ensure_ascii=False, indent=1, sort_keys=True)
            + "\n"
        )


def read_manifest(directory: str | Path) -> Manifest:
    """Raise ``ShardError`` when ``directory`` has no readable manifest of this format."""
    path = Path(directory) / MANIFEST
    try:
        return parse_manifest(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ShardError(
            f"no {MANIFEST} in {directory}: not a finished shard folder, run data-prep shard"
        ) from None
    except OSError as error:
        raise ShardError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ShardError(f"{path} cannot be read: {error}: run data-prep shard again") from error


def parse_manifest(text: str) -> Manifest:
    """Raise ``ValueError`` for everything but a manifest of this format."""
    try:
        content = json.loads(text)
        if content["format"] != FORMAT:
            raise ValueError(f"format is {content['format']!r}, expected {FORMAT!r}")
        shards = tuple(ShardEntry(**entry) for entry in content["shards"])
        return Manifest(content["tokenizer_sha256"], content["vocab_size"], shards)
    except (KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no manifest of {FORMAT}: {error!r}") from error


def _require_counts(described: object, names: Sequence[str]) -> None:
    for name in names:
        value = getattr(described, name)
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} must be a positive number, not {value!r}")


def _require_digest(value: object, what: str) -> None:
    if not isinstance(value, str) or not _SHA256.fullmatch(value):
        raise ValueError(f"{what}: {value!r} is no SHA-256")
