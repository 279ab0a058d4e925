"""Seeds that are the same in every process; Python's ``hash()`` is salted and must not be used for them."""

from __future__ import annotations

import hashlib


def stable_hash(*parts: str | int) -> int:
    """63 bits of SHA-256 over the parts, which are kept apart: ("a", "bc") differs from ("ab", "c")."""
    digest = hashlib.sha256()
    for part in parts:
        encoded = str(part).encode()
        digest.update(f"{len(encoded)}:".encode() + encoded)
    return int.from_bytes(digest.digest()[:8], "big") >> 1


def stream_seed(run_seed: int, peer_id: str, rank: int = 0) -> int:
    """Seed of one peer's stream: stable over restarts, different between peers and between ranks."""
    return stable_hash("artel stream", run_seed, peer_id, rank)
