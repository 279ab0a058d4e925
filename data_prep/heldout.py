"""The fixed, already masked rows on which a run's progress is measured; every participant sees the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from data_prep.errors import DataError

KEYS = ("input_ids", "attention_mask", "labels")


def save_heldout(
    path: Path,
    input_ids_BL: np.ndarray,
    attention_mask_BL: np.ndarray,
    labels_BL: np.ndarray,
    sources: Sequence[str] = (),
) -> None:
    """Stored in 32 bits: the file is part of what every peer downloads.

    ``sources``: of each row's text, if known.
    """
    arrays = zip(KEYS, (input_ids_BL, attention_mask_BL, labels_BL), strict=True)
    tensors = {key: torch.from_numpy(array.astype(np.int32)) for key, array in arrays}
    metadata = {"sources": json.dumps(list(sources))} if sources else None
    path.write_bytes(save(tensors, metadata))  # `save_file` makes it unreadable for a web server's user


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
    try:
        with safe_open(path, framework="pt") as file:
            kept = json.loads((file.metadata() or {}).get("sources", "[]"))
            rows = file.get_slice(KEYS[0]).get_shape()[0]
    except (OSError, SafetensorError, ValueError) as error:
        raise DataError(f"the held-out set {path} cannot be read: {error}") from error
    if not isinstance(kept, list) or len(kept) != rows:
        return None
    return [str(source) for source in kept]
