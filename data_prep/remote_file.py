"""A file on an HTTP server, read by ranges, checked, and kept in a local cache of chunks.

Every chunk is one file, written aside and renamed, so several processes may share a cache and a killed one
leaves nothing half-written. No byte is handed on that differs from the digests, neither from the server nor from
the cache. Whatever a server does instead of sending the right bytes (no answer, an error page, a login page, a whole
file or a part of another one, bytes without end), ``ShardUnavailable`` is raised, and again at once for everything
that is not cached, of the server where it does not answer and of the file otherwise, until ``RETRY_AFTER`` seconds
have passed.
"""

from __future__ import annotations

import hashlib
import http.client
import io
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from data_prep.errors import ShardError, ShardUnavailable

CHUNK = 1 << 18  # about two blocks: units are read in random order
RETRY_AFTER = 5.0
_TIMEOUT = 20.0  # without a byte
_DEADLINE = 180.0  # of a whole answer: 256 KiB at 1.5 kB/s
_DIGEST = 32
_PART = 1 << 16

down_until: dict[str, float] = {}  # by server and by URL: one that hangs must not hang every file


class RemoteFile(io.RawIOBase):
    """Seekable, read-only view of ``url``; ``cache_dir`` holds its chunks.

    :param size: of the file, in bytes
    :param digests: SHA-256 of every chunk, one after the other

    >>> file = RemoteFile(url, Path("cache"), size=5000, digests=digests)       # doctest: +SKIP
    >>> pyarrow.ipc.open_file(pyarrow.PythonFile(file))                         # doctest: +SKIP
    """

    def __init__(self, url: str, cache_dir: Path, *, size: int, digests: bytes, chunk: int = CHUNK) -> None:
        super().__init__()
        if len(digests) != _DIGEST * -(-size // chunk):
            raise ShardError(f"{url}: its chunk list is of a file of another size")
        known = hashlib.sha256(f"{url} {chunk} ".encode() + digests).hexdigest()[:16]
        self.url, self._folder = url, cache_dir / f"{file_name_of(url)}-{known}"
        self.size, self._chunk, self._digests = size, chunk, digests
        self._position = 0
        _make_folder(self._folder)

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
        start = index * self._chunk
        return _cached_or_fetched(
            self.url,
            self._folder / f"{index:08d}",
            self._digests[index * _DIGEST : (index + 1) * _DIGEST],
            length=min(self._chunk, self.size - start),
            start=start,
        )


def fetch_checked(url: str, cache_dir: Path, sha256: str, length: int) -> bytes:
    """A whole small file of ``length`` bytes with this digest, cached.

    Raises ``ShardUnavailable`` until the server gives it.
    """
    _make_folder(cache_dir)
    path = cache_dir / f"{file_name_of(url)}-{sha256[:16]}"
    return _cached_or_fetched(url, path, bytes.fromhex(sha256), length)


def chunk_list_size(size: int) -> int:
    """Bytes of the digests of all chunks of a file of so many bytes."""
    return _DIGEST * -(-size // CHUNK)


def read_at_most(response: http.client.HTTPResponse, length: int, seconds: float = _DEADLINE) -> bytes:
    """The body; raises ``OSError`` when it is longer than ``length`` bytes or takes longer than ``seconds``."""
    deadline = time.monotonic() + seconds
    body = bytearray()
    while part := response.read1(min(_PART, length + 1 - len(body))):
        body += part
        if len(body) > length:
            raise OSError(f"the answer is longer than {length} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError(f"the answer takes longer than {seconds:g} s")
    return bytes(body)


def is_url(path: str | Path) -> bool:
    return str(path).startswith(("http://", "https://"))


def file_name_of(url: str) -> str:
    return Path(urllib.parse.unquote(urllib.parse.urlsplit(url).path)).name


def _cached_or_fetched(url: str, path: Path, digest: bytes, length: int, start: int | None = None) -> bytes:
    """``length`` bytes of ``url`` (from ``start`` on: a range) with this digest, and from now on in ``path``."""
    try:
        data = path.read_bytes()
    except OSError:  # not cached yet, or not readable: fetch it
        data = b""
    if hashlib.sha256(data).digest() == digest:
        return data
    data = _fetch(url, length, start)
    if hashlib.sha256(data).digest() != digest:
        # a proxy's error page or a copy in the making: another try may bring the right bytes
        raise _unavailable(url, "the server sends bytes that are not those of the manifest")
    _store(path, data)
    return data


def _fetch(url: str, length: int, start: int | None) -> bytes:
    server = urllib.parse.urlsplit(url).netloc
    if time.monotonic() < max(down_until.get(key, 0.0) for key in (server, url)):
        raise ShardUnavailable(f"{url} did not answer a moment ago")
    headers = {} if start is None else {"Range": f"bytes={start}-{start + length - 1}"}
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT
        ) as response:
            if start is not None and response.status != http.client.PARTIAL_CONTENT:
                raise _unavailable(
                    url, f"the server does not serve ranges (it answers {response.status}): use one that does"
                )
            return read_at_most(response, length)
    except urllib.error.HTTPError as error:
        raise _unavailable(url, f"the server answers {error.code}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _unavailable(url, f"cannot be reached: {error}", server) from error


def _unavailable(url: str, reason: str, what: str | None = None) -> ShardUnavailable:
    down_until[what or url] = time.monotonic() + RETRY_AFTER
    return ShardUnavailable(f"{url}: {reason}")


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
