"""Watches for a cloud's notice that this machine will be taken away.

The notice is a file that appears (not empty), or a URL that begins to answer with something other than `FALSE`:
Amazon answers 404 until an instance is doomed, Google `FALSE` and then `TRUE`, Azure a document with a list of events.
"""

from __future__ import annotations

import http.client
import json
import logging
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from peer.grace import Grace
from swarm.errors import BadInput

logger = logging.getLogger(__name__)

POLL_SECONDS = 2.0
REQUEST_SECONDS = 2.0
MAX_NOTICE_BYTES = 4096
NO_NOTICE = ("", "false", "none")
UNREADABLE = (OSError, ValueError, http.client.HTTPException)
TOKEN_PATH = "/latest/api/token"


class PreemptionNotice:
    """Where a notice will appear.

    :param place: path of a file, or an http(s) URL
    :raises BadInput: a URL of another kind, or a file in a folder that does not exist
    """

    def __init__(self, place: str):
        scheme = urllib.parse.urlsplit(place).scheme
        if scheme in ("http", "https"):
            self.place = place
            self._look: Callable[[str], str] = read_url
        elif scheme in ("", "file"):
            self.place, self._look = place.removeprefix("file://"), read_file
            if not Path(self.place).parent.is_dir():
                raise BadInput(
                    f"--preemption-notice {place}: its folder does not exist; give the path of a file, or a URL"
                )
        else:
            raise BadInput(
                f"--preemption-notice {place}: give the path of a file, or an http:// or https:// URL"
            )

    def watch(self, grace: Grace) -> None:
        """Look every 2 s from a thread, and tell the peer to go when the notice is there."""
        threading.Thread(target=self._watch, args=(grace,), name="preemption", daemon=True).start()

    def _watch(self, grace: Grace) -> None:
        while not grace.requested.wait(POLL_SECONDS):
            if is_notice(self._look(self.place)):
                grace.request(f"preemption notice at {self.place}")
                return


def is_notice(text: str) -> bool:
    """Whether a place's content says that the machine will be taken away.

    >>> is_notice(""), is_notice("FALSE"), is_notice('{"Events": []}'), is_notice('{"action": "terminate"}')
    (False, False, False, True)
    """
    if text.strip().lower() in NO_NOTICE:
        return False
    try:
        document = json.loads(text)
    except ValueError:
        return True
    return not (isinstance(document, dict) and document.get("Events") == [])


def read_file(path: str) -> str:
    """Content of a notice file; empty if it is not there (yet)."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read(MAX_NOTICE_BYTES)
    except OSError:
        return ""


def read_url(url: str) -> str:
    """Answer of a metadata server; empty if there is none, or an error."""
    try:
        return _get(url, {})
    except urllib.error.HTTPError as error:
        if error.code != 401:
            return ""
    except UNREADABLE as error:
        logger.info("no answer from %s: %s", url, error)
        return ""
    return _read_with_token(url)


def _read_with_token(url: str) -> str:
    """Amazon's second version of the metadata service wants a session token first."""
    token_url = urllib.parse.urlunsplit((*urllib.parse.urlsplit(url)[:2], TOKEN_PATH, "", ""))
    asking = {"X-aws-ec2-metadata-token-ttl-seconds": "300"}
    try:
        token = _get(token_url, asking, method="PUT")
        return _get(url, {"X-aws-ec2-metadata-token": token})
    except UNREADABLE:
        return ""


def _get(url: str, headers: dict[str, str], method: str = "GET") -> str:
    # Google's and Azure's servers answer only requests that carry their headers; others ignore them
    own = {"Metadata-Flavor": "Google", "Metadata": "true"}
    request = urllib.request.Request(url, headers={**own, **headers}, method=method)
    # a metadata server is on this machine or beside it; a proxy's answer would be somebody else's
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=REQUEST_SECONDS) as response:
        return response.read(MAX_NOTICE_BYTES).decode("utf-8", errors="replace")
