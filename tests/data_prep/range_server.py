"""An HTTP server that knows ranges and can be away, for one test."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from data_prep.manifest import Manifest, ShardEntry
from data_prep.remote_shard import RemoteShard, remote_shards


@dataclass
class Server:
    """What the handler below serves, and what it was asked for."""

    folder: Path
    url: str = ""
    away: set[str] = field(default_factory=set)
    spoilt: bool = False
    knows_ranges: bool = True
    answer: Callable[[bytes], Iterable[bytes]] | None = None  # raw, of the bytes asked for
    served: int = 0
    entries: tuple[ShardEntry, ...] = ()

    def shards(self, cache: Path) -> list[RemoteShard]:
        return remote_shards(Manifest("0" * 64, self.entries_vocabulary, self.entries), self.url, cache)

    entries_vocabulary: int = 0


class Handler(BaseHTTPRequestHandler):
    """Answers with the bytes asked for, or whole files."""

    def __init__(self, server_state: Server, *arguments: object) -> None:
        self.state = server_state
        super().__init__(*arguments)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        name = unquote(self.path).lstrip("/")
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if name in self.state.away or "*" in self.state.away:
            self.send_error(503)
            return
        if not (self.state.folder / name).is_file():
            self.send_error(404)
            return
        data = (self.state.folder / name).read_bytes()
        if self.state.answer is not None:
            part = data if asked is None else data[int(asked[1]) : int(asked[2]) + 1]
            self.close_connection = True
            with suppress(ConnectionError):
                self.wfile.writelines(self.state.answer(part))
            return
        if asked is None or not self.state.knows_ranges:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            return
        if self.state.spoilt:
            data = bytes(len(data))
        part = data[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.state.served += len(part)
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(state: Server) -> Iterator[Server]:
    """Serve `state.folder` on a free port; fills in `state.url`."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, state))
    state.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        http.shutdown()
        thread.join()
        http.server_close()
