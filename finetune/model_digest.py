"""The digest that tells a local model from the one that may lie under its name tomorrow."""

from __future__ import annotations

import hashlib
from pathlib import Path

from data_prep.shards import file_sha256

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")


def digest_of_model(model: str) -> str | None:
    """Digest of a local model's weights: `checkpoints/latest` may point elsewhere tomorrow."""
    files = sorted(file for pattern in _WEIGHTS for file in Path(model).glob(pattern))
    if not files:
        return None
    lines = [f"{file.name} {file_sha256(file)}" for file in files]
    return f"sha256:{hashlib.sha256(chr(10).join(lines).encode()).hexdigest()}"
