"""A shard on an HTTP server, known from its manifest, opened when a block of it is first wanted.

A run may have thousands of shards: a peer that has just joined asks the server for those it reads, and one
that finds the server away can still begin with what it has cached.
"""

from __future__ import annotations

import threading
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa

from data_prep.block_text import BlockText
from data_prep.errors import ShardError
from data_prep.manifest import Manifest, ShardEntry
from data_prep.remote_file import RemoteFile, chunk_list_size, fetch_checked
from data_prep.shards import CHUNK_LIST, ShardReader


class RemoteShard:
    """Blocks of one shard over HTTP; raises `ShardUnavailable` while the server is away.

    >>> shard = RemoteShard(entry, manifest.vocab_size, "https://example.org/corpus/shards", Path("cache"))
    >>> shard.block(0).ids
    """

    def __init__(self, entry: ShardEntry, vocab_size: int, base: str, cache_dir: Path) -> None:
        if not entry.chunks_sha256:
            raise ShardError(
                f"the manifest of {base} has no digests of chunks, so nothing that arrives could be checked: "
                "make the shards anew with this version of data-prep"
            )
        self.name, self.source, self.size = entry.file, entry.source, entry.bytes
        self.vocab_size, self.documents, self.tokens = vocab_size, entry.documents, entry.tokens
        self._entry, self._cache_dir = entry, cache_dir
        self.url = f"{base.rstrip('/')}/{quote(entry.file)}"
        self._reader: ShardReader | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._entry.blocks

    def block(self, index: int) -> BlockText:
        with self._lock:
            return self._open().block(index)

    def close(self) -> None:
        with self._lock:
            if self._reader is not None:
                self._reader.close()
                self._reader = None

    def _open(self) -> ShardReader:
        if self._reader is None:
            length = chunk_list_size(self.size)
            digests = fetch_checked(self.url + CHUNK_LIST, self._cache_dir, self._entry.chunks_sha256, length)
            file = RemoteFile(self.url, self._cache_dir, size=self.size, digests=digests)
            reader = ShardReader(self.url, pa.PythonFile(file, mode="r"))
            if (len(reader), reader.vocab_size) != (len(self), self.vocab_size):
                raise ShardError(f"{self.url} does not hold what its manifest says")
            self._reader = reader
        return self._reader


def remote_shards(manifest: Manifest, base: str, cache_dir: Path) -> list[RemoteShard]:
    """All shards of a manifest, below the URL ``base``."""
    return [RemoteShard(entry, manifest.vocab_size, base, cache_dir) for entry in manifest.shards]
