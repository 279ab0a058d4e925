"""The corpus folder every step reads and writes: Parquet parts of ``text, source, id`` and a summary.

Parts are written in order and read in order of their names, so a step's output does not depend on the
machine. ``summary.json`` says what the step did: it is written last.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.documents import Document
from data_prep.errors import DataError

SUMMARY = "summary.json"
SCHEMA = pa.schema([("text", pa.string()), ("source", pa.string()), ("id", pa.string())])
_ROWS_IN_MEMORY = 1000
_PART_BYTES = 256 << 20


class CorpusWriter:
    """Write documents to ``part-00000.parquet`` and on; use as a context manager.

    >>> with CorpusWriter(folder) as writer:
    ...     writer.write(document)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: list[Document] = []
        self._parquet: pq.ParquetWriter | None = None
        self._parts = self._bytes = 0
        self.documents = 0

    def write(self, document: Document) -> None:
        self._rows.append(document)
        self.documents += 1
        if len(self._rows) >= _ROWS_IN_MEMORY:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        if self._parquet is None:
            path = self._folder / f"part-{self._parts:05d}.parquet"
            self._parquet = pq.ParquetWriter(path, SCHEMA, compression="zstd")
            self._parts += 1
        columns = [[getattr(row, name) for row in self._rows] for name in SCHEMA.names]
        table = pa.table(columns, schema=SCHEMA)
        self._parquet.write_table(table)
        self._rows = []
        self._bytes += table.nbytes
        if self._bytes >= _PART_BYTES:
            self._finish_part()

    def _finish_part(self) -> None:
        if self._parquet is not None:
            self._parquet.close()
            self._parquet, self._bytes = None, 0

    def __enter__(self) -> CorpusWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: BaseException | TracebackType | None) -> None:
        if kind is None:
            self._flush()
        self._finish_part()


def corpus_parts(folder: str | Path) -> list[Path]:
    """The Parquet parts of a corpus folder; ``DataError`` when there is none."""
    parts = sorted(Path(folder).glob("part-*.parquet"))
    if not parts:
        raise DataError(f"{folder} is not a corpus folder (no part-*.parquet): run data-prep import first")
    return parts


def read_tables(folder: str | Path) -> Iterator[pa.RecordBatch]:
    """Batches of the three columns, in order."""
    for part in corpus_parts(folder):
        with _told(part):
            for batch in _opened(part).iter_batches(_ROWS_IN_MEMORY, columns=SCHEMA.names):
                for column in batch.columns:
                    _require_whole(column)
                yield batch


def read_corpus(folder: str | Path) -> Iterator[Document]:
    """Documents of a corpus folder, in order."""
    for batch in read_tables(folder):
        for row in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            yield Document(*row)


def count_documents(folder: str | Path) -> int:
    return sum(_rows(part) for part in corpus_parts(folder))


def _rows(part: Path) -> int:
    with _told(part):
        return int(_opened(part).metadata.num_rows)


def read_texts(part: Path) -> pa.Array:
    """The texts of one part."""
    with _told(part):
        texts = _opened(part).read(columns=["text"]).column("text").combine_chunks()
        _require_whole(texts)
        return texts


def _opened(part: Path) -> pq.ParquetFile:
    file = pq.ParquetFile(part)
    for name in SCHEMA.names:
        kind = file.schema_arrow.field(name).type
        if not pa.types.is_string(kind) and not pa.types.is_large_string(kind):
            raise ValueError(f"column {name} holds {kind} and not text")
    return file


def _require_whole(column: pa.Array) -> None:
    """Raise ``ValueError`` for missing texts and what is no Unicode: other tools may have written it."""
    column.validate(full=True)
    if column.null_count:
        raise ValueError("a row has no text, source or id")


@contextmanager
def _told(part: Path) -> Iterator[None]:
    """What cannot be read is an error that names the part."""
    try:
        yield
    except (pa.ArrowException, OSError, KeyError, ValueError) as error:
        raise DataError(f"{part} cannot be read: {error}: run the step that wrote it again") from error


def write_summary(folder: Path, step: str, **content: Any) -> dict[str, Any]:
    summary = {"step": step, **content}
    (folder / SUMMARY).write_text(json.dumps(summary, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return summary


def read_summary(folder: str | Path) -> dict[str, Any]:
    """Empty when the folder has none."""
    try:
        summary = json.loads((Path(folder) / SUMMARY).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(f"{Path(folder) / SUMMARY} cannot be read: {error}") from error
    if not isinstance(summary, dict) or (type(summary.get("step")), type(summary.get("documents"))) != (
        str,
        int,
    ):
        raise DataError(f"{Path(folder) / SUMMARY} is not the summary of a step")
    return summary


def write_corpus(folder: Path, documents: Iterable[Document]) -> int:
    with CorpusWriter(folder) as writer:
        for document in documents:
            writer.write(document)
    return writer.documents
