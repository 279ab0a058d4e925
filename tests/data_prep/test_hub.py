"""A data set by its id: from a local folder, and from a stand-in of the hub that speaks its API over HTTP."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.corpus_folder import read_corpus
from data_prep.errors import DataError
from data_prep.import_step import import_documents

REVISION = "0123456789abcdef0123456789abcdef01234567"
CARD = "---\nconfigs:\n- config_name: ru\n  data_files: ru/*.parquet\n---\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A data set without a script: a card with one configuration, and two Parquet files."""
    folder = tmp_path / "wiki"
    (folder / "ru").mkdir(parents=True)
    (folder / "README.md").write_text(CARD)
    for part in range(2):
        rows = [{"id": f"{part}-{row}", "text": f"Статья {row} части {part}."} for row in range(50)]
        pq.write_table(pa.Table.from_pylist(rows), folder / "ru" / f"train-{part}.parquet")
    return folder


def test_a_local_folder_by_configuration_and_split(repository: Path, tmp_path: Path) -> None:
    summary = import_documents([f"hf:{repository}@ru:train"], tmp_path / "out")
    assert summary["sources"] == {"wiki": 100}
    first = next(read_corpus(tmp_path / "out"))
    assert (first.text, first.id) == ("Статья 0 части 0.", "0-0")


def test_a_damaged_file_ends_the_stream_and_is_reported(repository: Path, tmp_path: Path) -> None:
    path = repository / "ru" / "train-1.parquet"
    path.write_bytes(path.read_bytes()[:-300])
    summary = import_documents([f"hf:{repository}@ru"], tmp_path / "out")
    assert summary["documents"] == 50
    assert summary["damage"]["places"][0]["position"] == "after row 50"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("hf:", "names no data set"),
        ("hf:{}@en", "cannot be read"),
        ("hf:{}@ru:validation", "cannot be read"),
        ("hf:nobody/nothing", "cannot be read"),
    ],
)
def test_what_is_not_there_is_named(repository: Path, tmp_path: Path, name: str, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        import_documents([name.format(repository)], tmp_path / "out")
    assert "\n" not in str(caught.value)


class Hub(BaseHTTPRequestHandler):
    """The few calls that `datasets` makes to read a public data set."""

    def __init__(self, folder: Path, *arguments: object) -> None:
        self.folder = folder
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if found := re.fullmatch(r"/api/datasets/artel/wiki/tree/[^/]+/?(.*)", path):
            self._json([self._entry(file) for file in sorted((self.folder / found[1]).iterdir())])
        elif path.startswith("/api/datasets/artel/wiki"):
            files = [{"rfilename": entry["path"]} for entry in map(self._entry, self._files())]
            facts = {"id": "artel/wiki", "sha": REVISION, "siblings": files, "tags": [], "downloads": 0}
            self._json({**facts, "private": False, "gated": False, "disabled": False, "likes": 0})
        elif found := re.fullmatch(r"/datasets/artel/wiki/resolve/[^/]+/(.+)", path):
            self._file(self.folder / found[1].replace("%2F", "/"))
        else:
            self._json({"error": "Repository not found"}, 404)

    do_HEAD = do_GET

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        wanted = json.loads(body)["paths"] if body.startswith("{") else re.findall(r"paths=([^&]+)", body)
        names = [name.replace("%2F", "/") for name in wanted]
        self._json([self._entry(self.folder / name) for name in names if (self.folder / name).is_file()])

    def _files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def _entry(self, path: Path) -> dict[str, object]:
        name = path.relative_to(self.folder).as_posix()
        kind = "directory" if path.is_dir() else "file"
        return {"type": kind, "path": name, "size": path.stat().st_size, "oid": "0" * 40}

    def _file(self, path: Path) -> None:
        if not path.is_file():
            self._json({"error": "Entry not found"}, 404, "EntryNotFound")
            return
        data, size = path.read_bytes(), path.stat().st_size
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked:
            first, last = int(asked[1]), int(asked[2] or size - 1)
            data = data[first : last + 1]
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{size}")
        self.send_header("X-Repo-Commit", REVISION)
        self.send_header("ETag", '"0123"')
        self._send(data)

    def _json(self, content: object, status: int = 200, error: str = "RepoNotFound") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 404:
            self.send_header("X-Error-Code", error)
        self._send(json.dumps(content).encode())

    def _send(self, data: bytes) -> None:
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub(repository: Path) -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Hub, repository))
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{http.server_port}"
    http.shutdown()
    thread.join()
    http.server_close()


def test_streaming_from_a_hub(hub: str, tmp_path: Path) -> None:
    """In a process of its own: the hub's address is read when its client is imported."""
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"}
    environment |= {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        environment.pop(proxy, None)
    code = "from data_prep.cli import main; main()"
    arguments = ["import", "hf:artel/wiki@ru", "-o", str(tmp_path / "out"), "--json"]
    result = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout)["sources"] == {"wiki": 100}
