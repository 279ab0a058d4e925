"""What several folders of tests share."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

os.environ.setdefault("HIVEMIND_LOGLEVEL", "CRITICAL")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.scenarios.network import Network
from tests.scenarios.swarm_under_test import SwarmUnderTest, _marked_processes, wait_for_leftovers
from tests.spec_toml import spec_toml

# how long an example takes is this machine's business
hypothesis.settings.register_profile("any machine", deadline=None)
hypothesis.settings.load_profile("any machine")

LEFTOVER_SECONDS = 10.0
SEQUENCE_LENGTH = 16
VOCAB_SIZE = 448


@pytest.fixture(scope="session")
def prepared_data(tmp_path_factory) -> Path:
    """Tokenizer, shards and held-out set from made-up Russian sentences."""
    from data_prep.prepare import prepare_corpus

    folder = tmp_path_factory.mktemp("data") / "prepared"
    prepare_corpus(
        made_up_documents(),
        folder,
        vocab_size=VOCAB_SIZE,
        sequence_length=SEQUENCE_LENGTH,
        heldout_fraction=0.05,
        heldout_rows=32,
        seed=0,
        progress=None,
    )
    return folder


def made_up_documents() -> Iterator:
    """A thousand sentences of a small grammar: enough for a loss that falls."""
    from data_prep.documents import Document

    rng = random.Random(0)
    nouns = ["кошка", "собака", "птица", "рыба", "лошадь", "корова", "мышь", "лиса"]
    verbs = ["видит", "любит", "ищет", "ловит", "слышит", "знает"]
    adverbs = ["быстро", "тихо", "всегда", "редко", "снова", "вчера"]
    for number in range(1000):
        words = (rng.choice(nouns), rng.choice(adverbs), rng.choice(verbs), rng.choice(nouns))
        yield Document(text=" ".join(words).capitalize() + ".", source="made-up", id=str(number))


@pytest.fixture
def make_spec(tmp_path, prepared_data) -> Callable[..., Path]:
    """Writes a tiny run spec; keyword arguments replace single values, e.g. `training={"total_steps": 5}`."""

    def make(**sections: dict) -> Path:
        values = {
            "model": {
                "hidden_size": 32,
                "intermediate_size": 64,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "embedding_size": 16,
                "max_position_embeddings": 64,
            },
            "data": {"source": str(prepared_data), "sequence_length": SEQUENCE_LENGTH},
            "training": {
                "target_batch_size": 256,
                "micro_batch_size": 4,
                "total_steps": 100_000,
                "warmup_steps": 2,
                "learning_rate": 0.01,
            },
            "averaging": {
                "matchmaking_time": 2.0,
                "request_timeout": 0.8,
                "next_chunk_timeout": 3.0,
                "allreduce_timeout": 10.0,
                "download_timeout": 20.0,
            },
            "leases": {"period": 0.5, "expiration": 2.5},
            "checkpoints": {"every_steps": 5, "follow_every_steps": 1, "keep": 3},
        }
        for section, changes in sections.items():
            values[section] = {**values.get(section, {}), **changes} if isinstance(changes, dict) else changes
        path = tmp_path / "spec.toml"
        path.write_text(spec_toml({"name": "test", "seed": 3, **values}))
        return path

    return make


@pytest.fixture
def make_swarm(tmp_path) -> Iterator[Callable[..., SwarmUnderTest]]:
    """Makes swarms that are ended with the test, and fails the test if one of their processes outlives it."""
    swarms: list[SwarmUnderTest] = []

    def make(spec_path: Path, folder: Path | None = None, network: Network | None = None) -> SwarmUnderTest:
        folder = folder or tmp_path
        folder.mkdir(parents=True, exist_ok=True)
        swarms.append(SwarmUnderTest(folder, spec_path, network))
        return swarms[-1]

    yield make
    for swarm in swarms:
        swarm.end()
    left = [left for swarm in swarms for left in wait_for_leftovers(swarm, deadline=LEFTOVER_SECONDS)]
    for swarm in swarms:
        for pid, _command in _marked_processes(swarm.mark):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"left behind: {left}"
