"""Shards: tokenized documents in Arrow IPC files, read by memory map, described by a manifest.

One row is one document: ``input_ids`` (16-bit while the vocabulary fits, no special tokens) and
``sentence_ends`` (number of ids up to the end of each sentence). A shard holds one source, named in the
schema's metadata beside the vocabulary size. A *block* is one record batch, the unit of shuffling and of
fetching. Beside a shard lies ``NAME.chunks``: the SHA-256 of each chunk of it, so that what a server sends in
ranges can be checked. ``manifest.json`` lists every shard with its SHA-256, that of its chunk list, and counts;
it is written last, so a folder without one is not finished.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa

from data_prep.block_text import BlockText, TokenizedDocument
from data_prep.errors import ShardError
from data_prep.manifest import FORMAT, ShardEntry
from data_prep.remote_file import CHUNK

CHUNK_LIST = ".chunks"
BLOCK_TOKENS = 1 << 16
SHARD_TOKENS = 1 << 26
_METADATA_KEY = b"artel"
_NO_NOTE = (KeyError, ValueError, TypeError, OverflowError, RecursionError)


@dataclass
class ShardWriter:
    """Write tokenized documents of one source into ``directory``; ``close`` returns the manifest lines."""

    directory: Path
    source: str
    vocab_size: int
    shard_tokens: int = SHARD_TOKENS
    block_tokens: int = BLOCK_TOKENS
    name: str = ""  # stands before the number in the shards' file names
    _entries: list[ShardEntry] = field(default_factory=list)
    _buffer: list[TokenizedDocument] = field(default_factory=list)
    _buffered: int = 0
    _open: _OpenShard | None = None

    def write(self, document: TokenizedDocument) -> None:
        if not len(document.input_ids):
            return
        self._buffer.append(document)
        self._buffered += len(document.input_ids)
        if self._buffered >= self.block_tokens:
            self._flush()

    def close(self) -> list[ShardEntry]:
        self._flush()
        self._finish_shard()
        return self._entries

    def _flush(self) -> None:
        if not self._buffer:
            return
        if self._open is None:
            name = f"{_file_name(self.source)}-{self.name}{len(self._entries):05d}.arrow"
            self._open = _OpenShard(self.directory / name, self.source, self.vocab_size)
        self._open.write(self._buffer)
        self._buffer, self._buffered = [], 0
        if self._open.tokens >= self.shard_tokens:
            self._finish_shard()

    def _finish_shard(self) -> None:
        if self._open is not None:
            self._entries.append(self._open.close())
            self._open = None


class _OpenShard:
    def __init__(self, path: Path, source: str, vocab_size: int) -> None:
        self.path, self.source = path, source
        self.documents = self.sentences = self.tokens = self.blocks = 0
        self.schema = _schema(source, vocab_size)
        self.writer = pa.ipc.new_file(str(path), self.schema)

    def write(self, documents: list[TokenizedDocument]) -> None:
        ids = _list_array([d.input_ids for d in documents], self.schema.field("input_ids").type)
        ends = _list_array([d.sentence_ends for d in documents], self.schema.field("sentence_ends").type)
        self.writer.write_batch(pa.record_batch([ids, ends], schema=self.schema))
        self.documents += len(documents)
        self.sentences += len(ends.values)
        self.tokens += len(ids.values)
        self.blocks += 1

    def close(self) -> ShardEntry:
        self.writer.close()
        whole, chunks = chunk_digests(self.path)
        self.path.with_name(self.path.name + CHUNK_LIST).write_bytes(chunks)
        return ShardEntry(
            file=self.path.name,
            source=self.source,
            sha256=whole,
            bytes=self.path.stat().st_size,
            documents=self.documents,
            sentences=self.sentences,
            tokens=self.tokens,
            blocks=self.blocks,
            chunks_sha256=hashlib.sha256(chunks).hexdigest(),
        )


class Shard(Protocol):
    """What a stream needs of a shard, wherever it lies; its length is its number of blocks."""

    name: str
    source: str
    size: int
    vocab_size: int

    @property
    def documents(self) -> int: ...

    @property
    def tokens(self) -> int: ...

    def __len__(self) -> int: ...

    def block(self, index: int) -> BlockText: ...

    def close(self) -> None: ...


class ShardReader:
    """Blocks of one shard: of a local file by memory map, or of ``source``, any open binary file.

    Raises ``ShardError`` where it holds anything but documents of its vocabulary.

    >>> reader = ShardReader("shards/wiktionary-00000.arrow")
    >>> reader.block(0).ids
    """

    def __init__(self, path: str | Path, source: pa.NativeFile | None = None) -> None:
        self.path = str(path)
        self.name = self.path.rsplit("/", 1)[-1]
        self._opened = source or _memory_map(self.path)
        try:
            self._file = pa.ipc.open_file(self._opened)
            note = json.loads((self._file.schema.metadata or {})[_METADATA_KEY])
            self.source, self.vocab_size = str(note["source"]), int(note["vocab_size"])
            self.size: int = self._opened.size()
            if not self._file.schema.equals(_schema(self.source, self.vocab_size)):
                raise ValueError(f"it has columns {self._file.schema.names} of other types")
        except (pa.ArrowException, OSError, *_NO_NOTE) as error:
            self._opened.close()
            raise self._damaged(error) from error

    def __len__(self) -> int:
        return self._file.num_record_batches

    @property
    def documents(self) -> int:
        return sum(self._batch(index).num_rows for index in range(len(self)))

    @property
    def tokens(self) -> int:
        """Counted by the documents' offsets: the text itself stays on disk."""
        return sum(self._tokens_of(index) for index in range(len(self)))

    def block(self, index: int) -> BlockText:
        batch = self._batch(index)
        try:
            text = BlockText(*_flat_and_offsets(batch.column(0)), *_flat_and_offsets(batch.column(1)))
            text.check(self.vocab_size)
        except ValueError as error:
            raise self._damaged(error) from error
        return text

    def _tokens_of(self, index: int) -> int:
        try:
            ids, _offsets = _flat_and_offsets(self._batch(index).column(0))
        except ValueError as error:
            raise self._damaged(error) from error
        return len(ids)

    def _batch(self, index: int) -> pa.RecordBatch:
        try:
            batch = self._file.get_batch(index)
            batch.validate()
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error
        return batch

    def _damaged(self, error: Exception) -> ShardError:
        words = " ".join(str(error).split())
        return ShardError(f"{self.path} is not a shard of {FORMAT} (damaged or cut short): {words}")

    def all_documents(self) -> Iterator[TokenizedDocument]:
        for index in range(len(self)):
            yield from self.block(index).documents()

    def close(self) -> None:
        self._opened.close()


def _schema(source: str, vocab_size: int) -> pa.Schema:
    width = pa.uint16() if vocab_size <= 1 << 16 else pa.uint32()
    note = json.dumps({"format": FORMAT, "source": source, "vocab_size": vocab_size}).encode()
    columns = [("input_ids", pa.list_(width)), ("sentence_ends", pa.list_(pa.uint32()))]
    return pa.schema(columns, metadata={_METADATA_KEY: note})


def _memory_map(path: str) -> pa.NativeFile:
    try:
        return pa.memory_map(path)
    except FileNotFoundError:
        raise ShardError(f"no shard at {path}") from None
    except (OSError, pa.ArrowInvalid) as error:
        raise ShardError(f"{path} cannot be opened: {error}") from error


def file_sha256(path: Path) -> str:
    return chunk_digests(path)[0]


def chunk_digests(path: Path) -> tuple[str, bytes]:
    """SHA-256 of the whole file in hex, and those of its chunks, one after the other."""
    whole, chunks = hashlib.sha256(), []
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            whole.update(chunk)
            chunks.append(hashlib.sha256(chunk).digest())
    return whole.hexdigest(), b"".join(chunks)


def _list_array(rows: list[np.ndarray], kind: pa.ListType) -> pa.ListArray:
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    np.cumsum([len(row) for row in rows], out=offsets[1:])
    values = np.concatenate(rows).astype(kind.value_type.to_pandas_dtype())
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values), type=kind)


def _flat_and_offsets(column: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
    if column.null_count or not len(column):
        raise ValueError("a document is missing")
    offsets = _numbers(column.offsets, np.int32)
    width = np.uint16 if column.values.type == pa.uint16() else np.uint32
    return _numbers(column.values, width)[offsets[0] : offsets[-1]], offsets - offsets[0]


def _numbers(array: pa.Array, dtype: type) -> np.ndarray:
    """A view; `to_numpy` would import pandas, which takes a second at the beginning of every peer's life."""
    whole: np.ndarray = np.frombuffer(array.buffers()[1] or b"", dtype=dtype)
    return whole[array.offset : array.offset + len(array)]


def _file_name(source: str) -> str:
    """ASCII, as file names in run bundles and URLs must be; other names are told apart by a digest."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", source).strip("._")[:64]
    if plain == source:
        return plain
    return f"{plain or 'source'}-{hashlib.sha256(source.encode()).hexdigest()[:8]}"
