"""Tiny models and made-up data for the tests of `finetune/`, and its command in this process."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.cli import run_finetune
from tests.finetune import tiny_models
from tests.finetune.layouts import write_rucola, write_superglue

QUICK = ("--set", "epochs=1", "--set", "max_length=48", "--set", "batch_size=4")


@pytest.fixture(scope="session", autouse=True)
def _cheap_garbage_collection() -> Iterator[None]:
    """The Trainer collects garbage after every training: over half of a test's time, were the libraries' own
    million objects looked at each time."""
    import finetune.commands  # noqa: F401 (it imports them all)

    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@dataclass(frozen=True)
class Answer:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line about what went wrong."""
        lines = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def finetune(capsys) -> Callable[..., Answer]:
    """The `finetune` command, in this process."""

    def call(*words: object) -> Answer:
        code = run_finetune([str(word) for word in words])
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """Tiny models by architecture."""
    root = tmp_path_factory.mktemp("models")
    return {name: make(root / name) for name, make in tiny_models.MAKERS.items()}


@pytest.fixture(scope="session")
def superglue(tmp_path_factory) -> Path:
    return write_superglue(tmp_path_factory.mktemp("superglue"))


@pytest.fixture(scope="session")
def rucola_files(tmp_path_factory) -> Path:
    return write_rucola(tmp_path_factory.mktemp("rucola"))
