"""Small models for the tests of `model/`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from model import LeanAlbertConfig

SMALL = {
    "vocab_size": 101,
    "embedding_size": 32,
    "hidden_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 96,
}


@pytest.fixture(autouse=True)
def _one_thread_and_a_seed() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def small_config() -> Callable[..., LeanAlbertConfig]:
    """A factory of small configurations; keyword arguments override."""

    def make(**overrides: Any) -> LeanAlbertConfig:
        return LeanAlbertConfig(**{**SMALL, **overrides})

    return make


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Two rows of twelve tokens, the second padded after nine, three positions masked."""
    generator = torch.Generator().manual_seed(1)
    input_ids = torch.randint(4, 101, (2, 12), generator=generator)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 9:] = 0
    input_ids[1, 9:] = 0
    labels = torch.full_like(input_ids, -100)
    labels[0, [2, 7]] = torch.tensor([11, 12])
    labels[1, 4] = 13
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "labels": labels,
        "sentence_order_label": torch.tensor([0, 1]),
    }
