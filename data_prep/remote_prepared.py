"""A prepared folder (`tokenizer/`, `shards/`, `heldout.safetensors`) on an HTTP server, without its shards.

What is fetched here fits into a run bundle; shards are read by their readers, in ranges, against the manifest.
"""

from __future__ import annotations

import hashlib
import http.client
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

from data_prep.errors import DataError
from data_prep.manifest import MANIFEST, Manifest, read_manifest
from data_prep.prepare import HELDOUT_FILE, SHARDS_DIR, TOKENIZER_DIR
from data_prep.remote_file import read_at_most
from data_prep.remote_shard import remote_shards

_TIMEOUT = 30.0
_MOST_BYTES = 1 << 30
_NEEDED = (
    f"{SHARDS_DIR}/{MANIFEST}",
    f"{TOKENIZER_DIR}/tokenizer.json",
    f"{TOKENIZER_DIR}/tokenizer_config.json",
    HELDOUT_FILE,
)
_OPTIONAL = (f"{TOKENIZER_DIR}/special_tokens_map.json",)


def fetch_prepared(url: str, directory: Path) -> Manifest:
    """Fetch everything but the shards into ``directory``; raises `DataError` when the server lacks any of it."""
    for name in (*_NEEDED, *_OPTIONAL):
        content = _fetch(f"{url.rstrip('/')}/{name}", missing_is_fine=name in _OPTIONAL)
        if content is not None:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    manifest = read_manifest(directory / SHARDS_DIR)
    tokenizer = (directory / TOKENIZER_DIR / "tokenizer.json").read_bytes()
    if hashlib.sha256(tokenizer).hexdigest() != manifest.tokenizer_sha256:
        raise DataError(f"the tokenizer of {url} is not the one that its shards were written with")
    _try_ranges(manifest, url)
    return manifest


def _fetch(url: str, *, missing_is_fine: bool) -> bytes | None:
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT) as response:
            return read_at_most(response, _MOST_BYTES)
    except urllib.error.HTTPError as error:
        if error.code == 404 and missing_is_fine:
            return None
        raise DataError(
            f"{url}: the server answers {error.code}: give the URL of a folder that `data-prep shard` wrote"
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise DataError(f"{url} cannot be fetched: {getattr(error, 'reason', error)}") from error


def _try_ranges(manifest: Manifest, url: str) -> None:
    """Read one block: a server that knows no ranges is found now, and not by every peer."""
    with tempfile.TemporaryDirectory() as cache:
        shard = remote_shards(manifest, f"{url.rstrip('/')}/{SHARDS_DIR}", Path(cache))[0]
        shard.block(0)
        shard.close()
