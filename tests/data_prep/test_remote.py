"""Shards over HTTP: ranges, cache, and a server that goes away."""

from __future__ import annotations

import hashlib
import queue
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data_prep import remote_file
from data_prep.errors import ShardError, ShardUnavailable
from data_prep.masking import WholeWordMasker
from data_prep.remote_file import RemoteFile, fetch_checked
from data_prep.remote_shard import RemoteShard
from data_prep.shards import ShardReader, ShardWriter
from data_prep.stream import TrainingStream
from data_prep.tokenize_documents import tokenize_documents

from .conftest import make_documents
from .range_server import Server, serving

OPTIONS = {"sequence_length": 32, "batch_size": 4, "seed": 5}


@pytest.fixture
def server(tokenizer, tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    writer = ShardWriter(folder, "a", len(tokenizer), shard_tokens=4000, block_tokens=500)
    for tokenized in tokenize_documents(make_documents(500), tokenizer):
        writer.write(tokenized)
    entries = tuple(writer.close())
    assert len(entries) > 2
    state = Server(folder, entries=entries, entries_vocabulary=len(tokenizer))
    with serving(state):
        yield state


@pytest.fixture(autouse=True)
def forgotten_outages() -> Iterator[None]:
    yield
    remote_file.down_until.clear()


def _local(server: Server) -> list[Path]:
    return sorted(server.folder.glob("*.arrow"))


def test_the_same_stream_as_from_disk_and_nothing_twice(
    server: Server, masker: WholeWordMasker, tmp_path: Path
) -> None:
    batches = []
    for shards in (_local(server), server.shards(tmp_path / "cache"), server.shards(tmp_path / "cache")):
        with TrainingStream(shards, masker, **OPTIONS) as stream:
            batches.append([next(stream) for _ in range(150)])
    for left, right, cached in zip(*batches, strict=True):
        assert all(torch.equal(left[key], right[key]) and torch.equal(left[key], cached[key]) for key in left)
    assert server.served == sum(path.stat().st_size for path in _local(server))


def _file(server: Server, path: Path, cache: Path, chunk: int = 1024) -> RemoteFile:
    data = path.read_bytes()
    parts = (data[start : start + chunk] for start in range(0, len(data), chunk))
    digests = b"".join(hashlib.sha256(part).digest() for part in parts)
    return RemoteFile(f"{server.url}/{path.name}", cache, size=len(data), digests=digests, chunk=chunk)


def test_ranges_only_of_what_is_read(server: Server, tmp_path: Path) -> None:
    path = max(_local(server), key=lambda path: path.stat().st_size)
    file = _file(server, path, tmp_path / "cache")
    file.seek(3000)
    assert file.read(100) == path.read_bytes()[3000:3100]
    assert server.served == 1024 * 2
    assert file.read() == path.read_bytes()[3100:]


@pytest.mark.parametrize("sentence_pairs", [False, True])
@pytest.mark.parametrize("away", ["all but one", "*"])
def test_goes_on_while_shards_are_away(
    server: Server, masker: WholeWordMasker, tmp_path: Path, sentence_pairs: bool, away: str
) -> None:
    options = {**OPTIONS, "sequence_length": 64, "sentence_pairs": sentence_pairs, "prefetch": 0}
    names = {entry.file for entry in server.entries[1:]}
    with TrainingStream(server.shards(tmp_path / "cache"), masker, **options) as stream:
        for _ in range(5):
            next(stream)
        server.away.update(names if away != "*" else ["*"])
        for path in (tmp_path / "cache").rglob("0*"):
            path.unlink()
        if away == "*":  # what was read before is still cached
            _fill_cache(server, tmp_path / "cache")
        for _ in range(60):
            assert next(stream)["input_ids"].shape == (4, 64)
        assert stream.units_missed + stream.units_repeated > 0
        server.away.clear()
        remote_file.down_until.clear()
        state = stream.state_dict()
        expected = next(stream)
    with TrainingStream(server.shards(tmp_path / "cache"), masker, **options) as resumed:
        resumed.load_state_dict(state)
        assert torch.equal(next(resumed)["input_ids"], expected["input_ids"])


def _fill_cache(server: Server, cache: Path) -> None:
    """The first shard's chunk, put where the stream expects it."""
    (folder,) = cache.glob(f"{server.entries[0].file}-*/")
    (folder / "00000000").write_bytes((server.folder / server.entries[0].file).read_bytes())


def test_a_run_can_begin_before_the_server_is_there(
    server: Server, masker: WholeWordMasker, tmp_path: Path
) -> None:
    server.away.add("*")
    told: queue.Queue[str] = queue.Queue()
    with TrainingStream(server.shards(tmp_path / "cache"), masker, **OPTIONS, tell=told.put) as stream:
        stream.read_ahead()
        message = told.get(timeout=30)
        assert message.startswith("waiting for text: http://")
        assert "503" in message
        server.away.clear()
        assert next(stream)["input_ids"].shape == (4, 32)


def test_what_differs_from_the_manifest_is_not_used(
    server: Server, masker: WholeWordMasker, tmp_path: Path
) -> None:
    (shard, *_) = server.shards(tmp_path / "cache")
    server.spoilt = True
    with pytest.raises(ShardUnavailable, match="not those of the manifest"):
        shard.block(0)
    server.spoilt = False
    remote_file.down_until.clear()
    text = shard.block(0).ids
    for path in (tmp_path / "cache").rglob("0*"):
        path.write_bytes(bytes(path.stat().st_size))  # the disk rots
    again = server.shards(tmp_path / "cache")[0]
    assert (again.block(0).ids == text).all()
    list_of_chunks = server.folder / f"{shard.name}.chunks"
    list_of_chunks.write_bytes(bytes(list_of_chunks.stat().st_size))
    with pytest.raises(ShardUnavailable, match="not those of the manifest"):
        server.shards(tmp_path / "other cache")[0].block(0)


HEAD = b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/2\r\n"


def _endless(_part: bytes) -> Iterator[bytes]:
    yield HEAD + b"\r\n"
    while True:
        yield bytes(1 << 16)


WRONG: dict[str, Callable[[bytes], Iterable[bytes]]] = {
    "nothing": lambda part: [],
    "no HTTP": lambda part: [b"SSH-2.0-OpenSSH_9.2\r\n\r\n"],
    "endless": _endless,
    "endless headers": lambda part: [HEAD, b"A: b\r\n" * 5000],
    "a line without end": lambda part: [b"HTTP/1.1 206 " + b"x" * 200_000],
    "too long": lambda part: [HEAD, b"\r\n", part, b"more"],
    "too short": lambda part: [HEAD, b"\r\n", part[:-1]],
    "cut off": lambda part: [HEAD, b"Content-Length: %d\r\n\r\n" % len(part), part[: len(part) // 2]],
    "chunks that lie": lambda part: [HEAD, b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFF\r\n", part],
    "a login page": lambda part: [b"HTTP/1.1 200 OK\r\n\r\n<html>log in first</html>"],
    "other bytes": lambda part: [HEAD, b"\r\n", bytes(len(part))],
    "a redirect to itself": lambda part: [b"HTTP/1.1 302 Found\r\nLocation: /again\r\n\r\n"],
    "a redirect to a file": lambda part: [b"HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n"],
    "gone": lambda part: [b"HTTP/1.1 410 Gone\r\n\r\n"],
}


@pytest.mark.parametrize("wrong", WRONG)
def test_whatever_a_server_answers(wrong: str, server: Server, tmp_path: Path) -> None:
    shard = server.shards(tmp_path / "cache")[0]
    for opened in (False, True):
        server.answer = WRONG[wrong]
        with pytest.raises(ShardUnavailable):
            shard.block(0)
        server.answer = None
        remote_file.down_until.clear()
        if not opened:
            shard._open()  # only the text itself is missing now
            for path in (tmp_path / "cache").rglob("0*"):
                path.unlink()
    local = ShardReader(server.folder / shard.name)
    assert (shard.block(0).ids == local.block(0).ids).all()


def test_a_redirect_is_followed(server: Server, tmp_path: Path) -> None:
    with serving(Server(server.folder)) as elsewhere:
        name = server.entries[0].file
        server.answer = lambda part: [
            f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere.url}/{name}\r\n\r\n".encode()
        ]
        path = server.folder / name
        assert _file(server, path, tmp_path / "cache").read(10) == path.read_bytes()[:10]


def test_errors(server: Server, tmp_path: Path) -> None:
    path = server.folder / server.entries[0].file
    with pytest.raises(ShardUnavailable, match="cannot be reached"):
        fetch_checked("http://127.0.0.1:9/a.arrow.chunks", tmp_path / "cache", "0" * 64, 32)
    with pytest.raises(ShardUnavailable, match="a moment ago"):
        fetch_checked("http://127.0.0.1:9/b.arrow.chunks", tmp_path / "cache", "0" * 64, 32)
    server.away.add(path.name)
    file = _file(server, path, tmp_path / "cache")
    with pytest.raises(ShardUnavailable, match="503"):
        file.read(10)
    with pytest.raises(ShardError, match="of another size"):
        RemoteFile(file.url, tmp_path, size=file.size * 1000, digests=bytes(32))
    with pytest.raises(ShardError, match="no digests"):
        RemoteShard(replace(server.entries[0], chunks_sha256=""), 512, server.url, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ShardError, match="cache folder"):
        _file(server, path, tmp_path / "file")
