"""The fixed, already masked rows on which a run's progress is measured; every participant sees the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from data_prep.errors import DataError

KEYS = ("input_ids", "attention_mask", "labels")
_ABOUT = "about"


def save_heldout(
    path: Path,
    input_ids_BL: np.ndarray,
    attention_mask_BL: np.ndarray,
    labels_BL: np.ndarray,
    sources: Sequence[str] = (),
    tokenizer_sha256: str = "",
) -> None:
    """Stored in 32 bits: the file is part of what every peer downloads.

    ``sources``: of each row's text, and ``tokenizer_sha256`` of the ``tokenizer.json`` that cut it, if known.
    """
    arrays = zip(KEYS, (input_ids_BL, attention_mask_BL, labels_BL), strict=True)
    tensors = {key: torch.from_numpy(array.astype(np.int32)) for key, array in arrays}
    about = json.dumps({"sources": list(sources), "tokenizer_sha256": tokenizer_sha256}, sort_keys=True)
    # one key: safetensors writes several in a random order, and the file's digest is the run's
    # `save_file` would make it unreadable for a web server's user
    path.write_bytes(save(tensors, {_ABOUT: about}))


def load_heldout(path: str | Path) -> dict[str, torch.Tensor]:
    """``input_ids``, ``attention_mask``, ``labels``: int64 tensors [rows, sequence length].

    Raises ``DataError`` when the file is missing, damaged, or holds other tensors.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"the held-out set {path} cannot be read: {error}") from error
    if sorted(tensors) != sorted(KEYS):
        raise DataError(f"{path} holds {sorted(tensors)}, a held-out set has {sorted(KEYS)}")
    shapes = {tuple(tensor.shape) for tensor in tensors.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 2 or not all(shape):
        raise DataError(f"{path} is damaged: its tensors are not rows of equal shape")
    if any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors.values()):
        raise DataError(f"{path} is damaged: it holds other numbers than ids")
    return {key: tensor.to(torch.int64) for key, tensor in tensors.items()}


def load_heldout_sources(path: str | Path) -> list[str] | None:
    """The source of each row's text; None where the file does not say. Raises ``DataError``."""
    about, rows = _described(path)
    kept = about.get("sources")
    if not isinstance(kept, list) or len(kept) != rows:
        return None
    return [str(source) for source in kept]


def check_heldout_tokenizer(path: str | Path, tokenizer_sha256: str, vocab_size: int) -> None:
    """Raise ``DataError`` when the rows were not made with this tokenizer, as far as the file tells."""
    told = _described(path)[0].get("tokenizer_sha256") or tokenizer_sha256
    ids = load_heldout(path)["input_ids"]
    if told != tokenizer_sha256 or not 0 <= int(ids.min()) <= int(ids.max()) < vocab_size:
        raise DataError(
            "its held-out set was made with another tokenizer than its shards: run data-prep shard again"
        )


def _described(path: str | Path) -> tuple[dict[str, Any], int]:
    """What the file says of itself, and its number of rows."""
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get(_ABOUT, "{}"))
            rows = int(file.get_slice(KEYS[0]).get_shape()[0])
    except (OSError, SafetensorError, ValueError, IndexError, RecursionError) as error:
        raise DataError(f"the held-out set {path} cannot be read: {error}") from error
    return (about if isinstance(about, dict) else {}), rows
