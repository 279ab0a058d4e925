"""A model hub on a local port, as far as `huggingface-hub` needs one to upload a folder.

Keeps what was committed by file name in `files`; the first `failures` requests are answered with 503.
"""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class HubStandIn:
    """Serves until `stop`."""

    def __init__(self, failures: int = 0):
        self.failures, self.token = failures, ""
        self.files: dict[str, bytes] = {}
        self.blobs: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.asked: list[str] = []
        self.repositories: list[str] = []
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubStandIn

    def do_POST(self) -> None:
        self.hub.asked.append(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.hub.failures > 0:
            self.hub.failures -= 1
            self._answer({"error": "come back later"}, 500)
            return
        self.hub.token = self.headers.get("Authorization", "")
        if self.path == "/api/repos/create":
            name = json.loads(body)
            self.hub.repositories.append(f"{name['organization']}/{name['name']}")
            self._answer({"url": f"{self.hub.address}/{self.hub.repositories[-1]}"})
        elif "/preupload/" in self.path:
            files = json.loads(body)["files"]
            modes = [
                {"path": file["path"], "uploadMode": mode_of(file["path"]), "shouldIgnore": False}
                for file in files
            ]
            self._answer({"files": modes})
        elif self.path.endswith("/info/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            self._answer({"transfer": "basic", "objects": [self._slot(item) for item in objects]})
        elif "/commit/" in self.path:
            self._commit(body)
        else:  # of front matter, and whatever else is only asked to be checked
            self._answer({})

    def do_PUT(self) -> None:
        self.hub.blobs[self.path.rsplit("/", 1)[1]] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({})

    def do_GET(self) -> None:
        self.hub.asked.append(self.path)
        self._answer({})

    def _slot(self, item: dict) -> dict:
        return {**item, "actions": {"upload": {"href": f"{self.hub.address}/blob/{item['oid']}"}}}

    def _commit(self, body: bytes) -> None:
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                self.hub.messages.append(value["summary"])
            elif line["key"] == "file":
                self.hub.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.hub.files[value["path"]] = self.hub.blobs[value["oid"]]
        url = f"{self.hub.address}/{self.hub.repositories[-1]}/commit/{'0' * 40}"
        self._answer({"success": True, "commitOid": "0" * 40, "commitUrl": url, "hookOutput": ""})

    def _answer(self, content: dict, status: int = 200) -> None:
        raw = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_arguments: object) -> None:
        """Keep the test's output clean."""


def mode_of(path: str) -> str:
    return "lfs" if path.endswith(".safetensors") else "regular"
