"""A file on an HTTP server, read by ranges, checked, and kept in a local cache of chunks.

Every chunk is one file, written aside and renamed, so several processes may share a cache and a killed one
leaves nothing half-written. Given the chunks' digests, no byte is handed on that differs from them, neither
from the server nor from the cache. When the server does not answer, ``ShardUnavailable`` is raised, and again
at once for everything of that server that is not cached until ``retry_after`` seconds have passed.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import ClassVar

from data_prep.errors import ShardError, ShardUnavailable

CHUNK = 1 << 18  # about two blocks: units are read in random order
_TIMEOUT = 20.0
_DIGEST = 32


class RemoteFile(io.RawIOBase):
    """Seekable, read-only view of ``url``; ``cache_dir`` holds its chunks.

    :param size: of the file; asked of the server without it
    :param digests: SHA-256 of every chunk, one after the other

    >>> file = RemoteFile("http://203.0.113.7/shards/news-00000.arrow", Path("cache"))
    >>> pyarrow.ipc.open_file(pyarrow.PythonFile(file))
    """

    _down_until: ClassVar[dict[str, float]] = {}  # by server: one that hangs must not hang every file

    def __init__(
        self,
        url: str,
        cache_dir: Path,
        *,
        size: int | None = None,
        digests: bytes | None = None,
        retry_after: float = 5.0,
        chunk: int = CHUNK,
    ) -> None:
        super().__init__()
        known = hashlib.sha256(f"{url} {chunk} ".encode() + (digests or b"")).hexdigest()[:16]
        self.url, self._folder = url, cache_dir / f"{file_name_of(url)}-{known}"
        self._server = urllib.parse.urlsplit(url).netloc
        self._retry_after, self._chunk, self._digests = retry_after, chunk, digests
        self._position = 0
        _make_folder(self._folder)
        self.size = self._known_size() if size is None else size
        if digests is not None and len(digests) != _DIGEST * -(-self.size // chunk):
            raise ShardError(f"{url}: its chunk list is of a file of another size")

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
            parts.append(self._chunk_bytes(index)[start : start + end - self._position])
            self._position += len(parts[-1])
        return b"".join(parts)

    def _chunk_bytes(self, index: int) -> bytes:
        path = self._folder / f"{index:08d}"
        length = min(self._chunk, self.size - index * self._chunk)
        try:
            data = path.read_bytes()
        except OSError:  # not cached yet, or not readable: fetch it
            data = b""
        if len(data) == length and self._intact(index, data):
            return data
        data, size = self._fetch(index * self._chunk, length)
        if len(data) != length or size != self.size:
            raise ShardError(f"{self.url} changed on the server: remove {self._folder} and start again")
        if not self._intact(index, data):
            # a proxy's error page or a copy in the making: another try may bring the right bytes
            raise self._unavailable("bytes that are not those of the manifest")
        _store(path, data)
        return data

    def _intact(self, index: int, data: bytes) -> bool:
        if self._digests is None:
            return True
        return hashlib.sha256(data).digest() == self._digests[index * _DIGEST : (index + 1) * _DIGEST]

    def _known_size(self) -> int:
        path = self._folder / "size.json"
        if path.is_file():
            return int(json.loads(path.read_text()))
        _, size = self._fetch(0, 1)
        _store(path, json.dumps(size).encode())
        return size

    def _fetch(self, start: int, length: int) -> tuple[bytes, int]:
        """Bytes of the range and the size of the whole file."""
        if time.monotonic() < max(self._down_until.get(key, 0.0) for key in (self._server, self.url)):
            raise ShardUnavailable(f"{self.url} did not answer a moment ago")
        request = urllib.request.Request(self.url, headers={"Range": f"bytes={start}-{start + length - 1}"})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
                if response.status != 206:
                    raise ShardError(f"the server of {self.url} does not serve ranges: use one that does")
                return response.read(), int(response.headers["Content-Range"].rpartition("/")[2])
        except urllib.error.HTTPError as error:
            raise self._unavailable(f"the server answers {error.code}") from error
        except (OSError, ValueError, TypeError, http.client.HTTPException) as error:
            raise self._unavailable(f"cannot be reached: {error}", self._server) from error

    def _unavailable(self, reason: str, what: str | None = None) -> ShardUnavailable:
        self._down_until[what or self.url] = time.monotonic() + self._retry_after
        return ShardUnavailable(f"{self.url}: {reason}")


def fetch_checked(url: str, cache_dir: Path, sha256: str) -> bytes:
    """A whole small file with this digest, cached; raises ``ShardUnavailable`` until the server gives it."""
    _make_folder(cache_dir)
    path = cache_dir / f"{file_name_of(url)}-{sha256[:16]}"
    try:
        data = path.read_bytes()
    except OSError:
        data = b""
    if hashlib.sha256(data).hexdigest() == sha256:
        return data
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            data = response.read()
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ShardUnavailable(f"{url} cannot be fetched: {error}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ShardUnavailable(f"{url}: the server sends bytes that are not those of the manifest")
    _store(path, data)
    return data


def is_url(path: str | Path) -> bool:
    return str(path).startswith(("http://", "https://"))


def file_name_of(url: str) -> str:
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ShardError(f"the cache folder {folder} cannot be used: {error.strerror}") from error


def _store(path: Path, data: bytes) -> None:
    """Keep for next time; a full disk only means that there is no next time."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
