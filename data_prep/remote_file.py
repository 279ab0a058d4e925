"""A file on an HTTP server, read by ranges and kept in a local cache of chunks.

Every chunk is one file, written aside and renamed, so several processes may share a cache and a killed one
leaves nothing half-written. When the server does not answer, ``ShardUnavailable`` is raised, and again at
once for chunks that are not cached until ``retry_after`` seconds have passed: a stream goes on with what is
cached and comes back later.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from data_prep.errors import ShardError, ShardUnavailable

CHUNK = 1 << 20
_TIMEOUT = 20.0


class RemoteFile(io.RawIOBase):
    """Seekable, read-only view of ``url``; ``cache_dir`` holds its chunks.

    >>> file = RemoteFile("http://203.0.113.7/shards/news-00000.arrow", Path("cache"))
    >>> pyarrow.ipc.open_file(pyarrow.PythonFile(file))
    """

    def __init__(self, url: str, cache_dir: Path, *, retry_after: float = 5.0, chunk: int = CHUNK) -> None:
        super().__init__()
        name = hashlib.sha256(f"{url} {chunk}".encode()).hexdigest()[:16]
        self.url, self._folder = url, cache_dir / f"{Path(urllib.parse.urlparse(url).path).name}-{name}"
        self._retry_after, self._chunk = retry_after, chunk
        self._down_until = 0.0
        self._position = 0
        self._folder.mkdir(parents=True, exist_ok=True)
        self.size = self._known_size()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        end = self.size if size < 0 else min(self.size, self._position + size)
        parts = []
        while self._position < end:
            index, start = divmod(self._position, self._chunk)
            data = self._chunk_bytes(index)[start : start + end - self._position]
            if not data:
                raise ShardError(f"the cached part of {self.url} is damaged: remove {self._folder}")
            parts.append(data)
            self._position += len(data)
        return b"".join(parts)

    def _chunk_bytes(self, index: int) -> bytes:
        path = self._folder / f"{index:08d}"
        length = min(self._chunk, self.size - index * self._chunk)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            data = b""
        if len(data) != length:
            data, size = self._fetch(index * self._chunk, length)
            if len(data) != length or size != self.size:
                raise ShardError(f"{self.url} changed on the server: remove {self._folder} and start again")
            self._store(path, data)
        return data

    def _known_size(self) -> int:
        path = self._folder / "size.json"
        if path.is_file():
            return int(json.loads(path.read_text()))
        _, size = self._fetch(0, 1)
        self._store(path, json.dumps(size).encode())
        return size

    def _fetch(self, start: int, length: int) -> tuple[bytes, int]:
        """Bytes of the range and the size of the whole file."""
        if time.monotonic() < self._down_until:
            raise ShardUnavailable(f"{self.url} did not answer a moment ago")
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={start}-{start + length - 1}"})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                if response.status != 206:
                    raise ShardError(f"the server of {self.url} does not serve ranges: use one that does")
                return response.read(), int(response.headers["Content-Range"].rpartition("/")[2])
        except urllib.error.HTTPError as error:
            self._down_until = time.monotonic() + self._retry_after
            raise ShardUnavailable(f"{self.url}: the server answers {error.code}") from error
        except (OSError, ValueError) as error:
            self._down_until = time.monotonic() + self._retry_after
            raise ShardUnavailable(f"{self.url} cannot be reached: {error}") from error

    def _store(self, path: Path, data: bytes) -> None:
        temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
        temporary.write_bytes(data)
        os.replace(temporary, path)


def is_url(path: str | Path) -> bool:
    return str(path).startswith(("http://", "https://"))
