"""What a run spec says of its text, with real processes: mixture, sentence pairs, growing length, shards over HTTP."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest
from safetensors import safe_open

from data_prep.documents import Document
from data_prep.prepare import prepare_corpus
from tests.conftest import VOCAB_SIZE, made_up_documents
from tests.data_prep.range_server import Server, serving


@pytest.fixture
def server(tmp_path):
    """A prepared folder of two sources, one of them with a name that is not ASCII."""
    sentences = [document.text for document in made_up_documents()]
    documents = [
        Document(" ".join(sentences[start : start + 5]), ("a", "б")[start % 2], str(start))
        for start in range(0, 1000, 5)
    ]
    folder = tmp_path / "served"
    prepare_corpus(
        documents, folder, vocab_size=VOCAB_SIZE, sequence_length=64, heldout_fraction=0.1, heldout_rows=16
    )
    with serving(Server(folder)) as server:
        yield server


def positions(folder: Path) -> dict[str, dict]:
    return {
        path.stem: json.loads(path.read_text()) for path in (folder / "cache" / "positions").glob("*/*.json")
    }


@pytest.mark.heavy
def test_a_run_reads_from_a_server_that_goes_away_and_a_peer_resumes_where_it_was(
    server, make_spec, make_swarm
):
    data = {
        "source": server.url,
        "sequence_length": 64,
        "sequence_length_start": 40,
        "sequence_length_warmup_steps": 4,
        "sentence_pairs": True,
        "weights": {"a": 3.0, "б": 1},
    }
    swarm = make_swarm(make_spec(data=data))
    swarm.start_coordinator()
    bundle = swarm.run_dir / "bundle"
    assert [path.name for path in (bundle / "shards").iterdir()] == ["manifest.json"]

    peer = swarm.start_peer("peer")
    swarm.wait_for(lambda: len(swarm.steps("peer")) >= 5, "five global steps", alive=peer)
    server.away.add("*")
    reached = swarm.steps("peer")[-1]
    swarm.wait_for(lambda: swarm.steps("peer")[-1] >= reached + 5, "steps without the server", alive=peer)
    peer.send_signal(signal.SIGTERM)
    assert peer.wait(30) == 0
    ((name, left),) = positions(swarm.folder).items()
    rows = left["rows"]
    assert rows["a"] == pytest.approx(3 * rows["б"], abs=3)

    peer = swarm.start_peer("again", "--stop-after-steps", "2")
    assert peer.wait(90) == 0, swarm.errors("again")
    resumed = positions(swarm.folder)[name]["rows"]
    assert sum(rows.values()) < sum(resumed.values()) < 2 * sum(rows.values()) + 2048
    assert all(event["seconds"]["data"] >= 0 for event in swarm.events("again", "step"))

    (path,) = (swarm.folder / "cache" / "positions").glob("*/*.json")
    path.write_text('{"seed": 3')
    server.away.clear()
    peer = swarm.start_peer("damaged", "--stop-after-steps", "1")
    assert peer.wait(90) == 0, swarm.errors("damaged")
    assert any("starting anew" in event["text"] for event in swarm.events("damaged", "message"))

    weights = sorted((swarm.run_dir / "checkpoints").glob("step-*/model.safetensors"))
    with safe_open(weights[0], "pt") as first, safe_open(weights[-1], "pt") as last:
        trained = [key for key in first.keys() if "pooler" in key or "sop" in key]  # noqa: SIM118
        assert trained
        assert any((first.get_tensor(key) != last.get_tensor(key)).any() for key in trained)
    assert swarm.status()["heldout_loss"] > 0
