"""Shards over HTTP: ranges, cache, and a server that goes away."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from data_prep.errors import DataError, ShardError, ShardUnavailable
from data_prep.masking import WholeWordMasker
from data_prep.remote_file import RemoteFile
from data_prep.shards import ShardWriter
from data_prep.stream import TrainingStream
from data_prep.tokenize_documents import tokenize_documents

from .conftest import make_documents

OPTIONS = {"sequence_length": 32, "batch_size": 4, "seed": 5}


@dataclass
class Server:
    """What the handler below serves, and what it was asked for."""

    folder: Path
    url: str = ""
    away: set[str] = field(default_factory=set)
    served: int = 0


class Handler(BaseHTTPRequestHandler):
    def __init__(self, server_state: Server, *arguments: object) -> None:
        self.state = server_state
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if name in self.state.away or asked is None:
            self.send_error(503)
            return
        data = (self.state.folder / name).read_bytes()
        part = data[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.state.served += len(part)
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tokenizer, tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "served"
    folder.mkdir()
    writer = ShardWriter(folder, "a", len(tokenizer), shard_tokens=4000, block_tokens=500)
    for tokenized in tokenize_documents(make_documents(500), tokenizer):
        writer.write(tokenized)
    assert len(writer.close()) > 2
    state = Server(folder)
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, state))
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield state
    http.shutdown()
    thread.join()
    http.server_close()


def _urls(server: Server) -> list[str]:
    return [f"{server.url}/{path.name}" for path in sorted(server.folder.iterdir())]


def test_the_same_stream_as_from_disk_and_nothing_twice(
    server: Server, masker: WholeWordMasker, tmp_path: Path
) -> None:
    local = sorted(server.folder.iterdir())
    batches = []
    for paths in (local, _urls(server), _urls(server)):
        with TrainingStream(paths, masker, cache_dir=tmp_path / "cache", **OPTIONS) as stream:
            batches.append([next(stream) for _ in range(150)])
    for left, right, cached in zip(*batches, strict=True):
        assert all(torch.equal(left[key], right[key]) and torch.equal(left[key], cached[key]) for key in left)
    size = sum(path.stat().st_size for path in local)
    assert size <= server.served <= size + len(local)  # one byte more a file asks for its size


def test_ranges_only_of_what_is_read(server: Server, tmp_path: Path) -> None:
    path = max(server.folder.iterdir(), key=lambda path: path.stat().st_size)
    file = RemoteFile(f"{server.url}/{path.name}", tmp_path / "cache", chunk=1024)
    file.seek(3000)
    assert file.read(100) == path.read_bytes()[3000:3100]
    assert server.served == 1 + 1024 * 2
    assert file.read() == path.read_bytes()[3100:]


@pytest.mark.parametrize("sentence_pairs", [False, True])
def test_goes_on_while_a_shard_is_away(
    server: Server, masker: WholeWordMasker, tmp_path: Path, sentence_pairs: bool
) -> None:
    urls = _urls(server)
    options = {**OPTIONS, "sequence_length": 64, "sentence_pairs": sentence_pairs}
    with TrainingStream(urls, masker, cache_dir=tmp_path / "cache", prefetch=0, **options) as stream:
        for path in (tmp_path / "cache").rglob("0*"):
            path.unlink()  # as if only sizes had been fetched
        server.away.update(url.rsplit("/", 1)[-1] for url in urls[1:])
        server.away.discard(urls[0].rsplit("/", 1)[-1])
        threading.Timer(0.3, server.away.clear).start()
        for _ in range(30):
            assert next(stream)["input_ids"].shape == (4, 64)
        state = stream.state_dict()
        expected = next(stream)
    with TrainingStream(urls, masker, cache_dir=tmp_path / "cache", **options) as resumed:
        resumed.load_state_dict(state)
        assert torch.equal(next(resumed)["input_ids"], expected["input_ids"])


def test_errors(server: Server, masker: WholeWordMasker, tmp_path: Path) -> None:
    urls = _urls(server)
    with pytest.raises(DataError, match="cache folder"):
        TrainingStream(urls, masker, **OPTIONS)
    with pytest.raises(ShardUnavailable, match="cannot be reached"):
        RemoteFile("http://127.0.0.1:9/a.arrow", tmp_path / "cache")
    server.away.add(urls[0].rsplit("/", 1)[-1])
    with pytest.raises(ShardUnavailable, match="503"):
        RemoteFile(urls[0], tmp_path / "cache")
    server.away.clear()
    file = RemoteFile(urls[0], tmp_path / "cache")
    path = server.folder / urls[0].rsplit("/", 1)[-1]
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(ShardError, match="changed on the server"):
        file.read(10)
