"""Readers of raw text: one file (or data set) in, documents out, damage reported and stepped over.

What a file is follows from its name: ``.xml`` a Wikipedia dump, ``.jsonl`` or ``.json`` JSON lines,
``.parquet``, ``.txt`` one document, ``.zip`` and ``.tar`` archives of text files such as Taiga's; all may be
compressed.
"""

from __future__ import annotations

import codecs
import json
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.compressed import DAMAGE, open_binary, plain_suffix, read_lines
from data_prep.damage import DamageReport
from data_prep.documents import Document
from data_prep.errors import DataError
from data_prep.wikipedia import read_wikipedia


@dataclass(frozen=True)
class Fields:
    """Which field holds the text and which the id; without an id, the position in the file is used."""

    text: str = "text"
    id: str = "id"


Reader = Callable[[Path, str, Fields, DamageReport], Iterator[Document]]


def read_file(path: Path, source: str, fields: Fields, damage: DamageReport) -> Iterator[Document]:
    """Documents of one file. Raises ``DataError`` for a kind of file that nobody here reads."""
    return reader_of(path)(path, source, fields, damage)


def reader_of(path: Path) -> Reader:
    """The reader of files with such a name; ``DataError`` if there is none."""
    suffix = ".tar" if path.name.lower().endswith(".tgz") else plain_suffix(path)
    if suffix not in _READERS:
        kinds = ", ".join(sorted(kind[1:] for kind in _READERS))
        raise DataError(f"{path}: no reader for this kind of file; there are {kinds}")
    return _READERS[suffix]


@dataclass(frozen=True)
class HubName:
    """``ID[@CONFIG][:SPLIT]``, for example ``wikimedia/wikipedia@20231101.ru:train``; an ID may be a local folder."""

    dataset: str
    config: str | None
    split: str

    @classmethod
    def parse(cls, text: str) -> HubName:
        rest, _, split = text.partition(":")
        dataset, _, config = rest.partition("@")
        if not dataset:
            raise DataError(f"hf:{text} names no data set: give hf:ID, hf:ID@CONFIG or hf:ID@CONFIG:SPLIT")
        return cls(dataset, config or None, split or "train")


def read_hub(name: HubName, source: str, fields: Fields, damage: DamageReport) -> Iterator[Document]:
    """A Hugging Face data set by id, streamed; where the stream breaks off is reported.

    Raises ``DataError`` when it does not exist, cannot be opened, or has no such field.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    failures = (OSError, ValueError, RuntimeError, DatasetsError, pa.ArrowException)
    number = 0
    try:
        rows = iter(load_dataset(name.dataset, name.config, split=name.split, streaming=True))
    except failures as error:
        reason = " ".join(str(error).split())[:300]
        raise DataError(f"the data set {name.dataset} cannot be read: {reason}") from error
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except failures as error:
            damage.add(f"hf:{name.dataset}", f"after row {number}", error)
            return
        if fields.text not in row:
            raise DataError(
                f"{name.dataset} has no field {fields.text!r}; it has {sorted(row)}: use --text-field"
            )
        number += 1
        if row[fields.text]:
            yield Document(str(row[fields.text]), source, _row_id(row, fields, str(number - 1)))


def _read_json_lines(path: Path, source: str, fields: Fields, damage: DamageReport) -> Iterator[Document]:
    for number, line in read_lines(path, damage):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8-sig"))
            if not isinstance(row, dict):
                raise TypeError("not a JSON object")
            text = row[fields.text]
            if not isinstance(text, str):
                raise TypeError(f"{fields.text!r} is not a string")
            text.encode()  # half a character, escaped, passes for text until it is written
        except KeyError:
            damage.add(str(path), f"line {number}", f"no field {fields.text!r}")
        except (ValueError, TypeError, RecursionError) as error:  # wrong Unicode is a ValueError
            damage.add(str(path), f"line {number}", error)
        else:
            yield Document(text, source, _row_id(row, fields, f"{path.name}:{number}"))


def _row_id(row: dict[str, Any], fields: Fields, place: str) -> str:
    """The row's own id, else where it stands: documents of one id would be held out together, or not at all.

    Parts of one work share its id: their numbers keep them apart.
    """
    given, part = row.get(fields.id), row.get("part")
    if given is None:
        return place
    return str(given) if part is None else f"{given}#{part}"


def _read_parquet(path: Path, source: str, fields: Fields, damage: DamageReport) -> Iterator[Document]:
    try:
        file = pq.ParquetFile(path)
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError) as error:
        damage.add(str(path), "whole file", error)
        return
    if fields.text not in names:
        raise DataError(f"{path} has no column {fields.text!r}; it has {names}: use --text-field")
    if not _is_text(kind := file.schema_arrow.field(fields.text).type):
        raise DataError(f"{path}: column {fields.text!r} holds {kind} and not text: use --text-field")
    columns = [name for name in (fields.text, fields.id) if name in names]
    first = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        try:
            table = file.read_row_group(group, columns=columns).to_pylist()
        except (pa.ArrowException, OSError) as error:
            damage.add(str(path), f"row group {group}, rows {first} to {first + rows - 1}", error)
            table = []
        for number, row in enumerate(table, first):
            if row[fields.text]:
                yield Document(row[fields.text], source, _row_id(row, fields, f"{path.name}:{number}"))
        first += rows


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _read_xml(path: Path, source: str, _fields: Fields, damage: DamageReport) -> Iterator[Document]:
    return read_wikipedia(path, source, damage)


def _read_text(path: Path, source: str, _fields: Fields, damage: DamageReport) -> Iterator[Document]:
    data = b"".join(line for _, line in read_lines(path, damage))
    yield from _decoded(data, source, path.name, str(path), damage)


def _read_zip(path: Path, source: str, _fields: Fields, damage: DamageReport) -> Iterator[Document]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in sorted(archive.infolist(), key=lambda member: member.filename):
                if not member.filename.lower().endswith(".txt"):
                    continue
                try:
                    data = archive.read(member)
                except (
                    zipfile.BadZipFile,
                    zlib.error,
                    OSError,
                    EOFError,
                    RuntimeError,
                ) as error:  # or encrypted
                    damage.add(str(path), f"member {member.filename}", error)
                else:
                    yield from _decoded(data, source, member.filename, str(path), damage)
    except (zipfile.BadZipFile, OSError) as error:
        damage.add(str(path), "whole archive", error)


def _read_tar(path: Path, source: str, _fields: Fields, damage: DamageReport) -> Iterator[Document]:
    last = "the beginning"
    try:
        with open_binary(path) as raw, tarfile.open(fileobj=raw, mode="r|") as archive:
            for member in archive:
                if member.isfile() and PurePosixPath(member.name).suffix.lower() == ".txt":
                    file = archive.extractfile(member)
                    data = file.read() if file else b""
                    yield from _decoded(data, source, member.name, str(path), damage)
                last = member.name
    except (*DAMAGE, tarfile.TarError) as error:
        damage.add(str(path), f"after {last}", error)


def _decoded(data: bytes, source: str, name: str, file: str, damage: DamageReport) -> Iterator[Document]:
    """UTF-8, UTF-16 if it says so, or Windows-1251 as old archives have it, in which any bytes are text but NUL."""
    reason: object = "no text: it has NUL bytes"
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "cp1251"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            reason = error
            continue
        if "\0" in text:
            break
        if text.strip():
            yield Document(text, source, name)
        return
    damage.add(file, name, reason)


_READERS: dict[str, Reader] = {
    ".xml": _read_xml,
    ".jsonl": _read_json_lines,
    ".json": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
    ".txt": _read_text,
    ".zip": _read_zip,
    ".tar": _read_tar,
}
