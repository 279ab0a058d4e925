"""Documents of mixed length for `benchmarks.train_step --packing`, padded and packed."""

from __future__ import annotations

import torch

from benchmarks.step_competitors import VOCABULARY
from model.training_step import Batch


def documents(batch: int, length: int) -> list[int]:
    """Lengths of documents that fill `batch` rows exactly: from an eighth of a row to a whole one."""
    pattern = (1, 3, 4, 8, 2, 6, 5, 3)
    return [length * eighths // 8 for _ in range(batch // 4) for eighths in pattern]


def packed_and_padded(batch: int, length: int) -> tuple[Batch, Batch]:
    """The same labelled documents one a row with padding, and several a row with none."""
    generator = torch.Generator().manual_seed(0)
    lengths = documents(batch, length)
    ids = [torch.randint(5, VOCABULARY, (n,), generator=generator) for n in lengths]
    labels = [i.where(torch.rand(i.shape, generator=generator) < 0.15, -100) for i in ids]
    pad = torch.nn.utils.rnn.pad_sequence
    padded = {"input_ids": pad(ids, batch_first=True), "labels": pad(labels, True, -100)}
    padded["attention_mask"] = (padded["input_ids"] > 0).long()
    numbers = [torch.full((n,), index + 1) for index, n in enumerate(lengths)]
    flat = {"input_ids": ids, "labels": labels, "sequence_ids": numbers}
    return {name: torch.cat(parts).view(batch, length) for name, parts in flat.items()}, padded
