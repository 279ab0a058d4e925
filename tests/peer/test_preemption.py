"""Notices of preemption, from a file and from a metadata server like those of the clouds."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from peer.grace import Grace
from peer.preemption import PreemptionNotice, is_notice, read_file, read_url
from swarm.errors import BadInput


class Metadata(BaseHTTPRequestHandler):
    """Amazon's way: a token first, 404 until the notice; Google's: FALSE, then TRUE, for those with its header.

    Azure's: a list of events, for those with its header.
    """

    notice: str | None = None

    def do_GET(self) -> None:
        if self.path == "/google":
            self._answer(200 if self.headers["Metadata-Flavor"] == "Google" else 403, self.notice or "FALSE")
        elif self.path == "/azure":
            self._answer(200 if self.headers["Metadata"] == "true" else 400, self.notice or '{"Events": []}')
        elif self.headers.get("X-aws-ec2-metadata-token") != "secret":
            self._answer(401, "")
        else:
            self._answer(404 if self.notice is None else 200, self.notice or "")

    def do_PUT(self) -> None:
        self._answer(200 if self.path == "/latest/api/token" else 404, "secret")

    def log_message(self, *_arguments: object) -> None:
        pass

    def _answer(self, code: int, text: str) -> None:
        self.send_response(code)
        self.end_headers()
        self.wfile.write(text.encode())


@pytest.fixture
def metadata() -> Iterator[tuple[str, type[Metadata]]]:
    handler = type("Handler", (Metadata,), {"notice": None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()


def test_a_file_is_a_notice_once_it_says_something(tmp_path):
    path = tmp_path / "notice"
    assert read_file(str(path)) == ""
    path.write_text("terminate")
    assert read_file(str(path)) == "terminate"


@pytest.mark.parametrize("place", ["/google", "/azure", "/latest/meta-data/spot/instance-action"])
def test_metadata_servers_are_understood(metadata, place):
    address, handler = metadata
    assert not is_notice(read_url(address + place))
    handler.notice = '{"action": "terminate"}'
    assert is_notice(read_url(address + place))
    assert "terminate" in read_url(address + place)


def test_a_server_that_is_not_there_gives_no_notice():
    assert read_url("http://127.0.0.1:9/notice") == ""


def test_a_notice_tells_the_peer_to_go(metadata):
    address, handler = metadata
    handler.notice = "TRUE"
    told = threading.Event()

    class Listening(Grace):
        def request(self, reason: str) -> None:
            assert "preemption notice" in reason
            told.set()

    PreemptionNotice(f"{address}/google").watch(Listening(seconds=30.0))
    assert told.wait(20)


@pytest.mark.parametrize("place", ["ftp://somewhere/notice", "/no/such/folder/notice"])
def test_a_place_that_cannot_be_watched_is_refused(place):
    with pytest.raises(BadInput, match="--preemption-notice"):
        PreemptionNotice(place)
