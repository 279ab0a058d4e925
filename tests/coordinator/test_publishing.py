"""From a checkpoint to a directory to publish, and to a model hub's repository."""

from __future__ import annotations

import queue
import threading
import time
from types import SimpleNamespace

import pytest

from coordinator.checkpoints import CheckpointStore, find_damage
from coordinator.ending import Ending
from coordinator.events import Event
from coordinator.export import choose_checkpoint, export_checkpoint
from coordinator.last_state import write_last_state
from coordinator.publisher import LONGEST_UPLOAD_SECONDS, Publisher
from coordinator.run_directory import RunDirectory
from data_prep.tokenizer import load_tokenizer
from swarm.errors import BadInput, OperationFailed
from swarm.spec import load_spec
from swarm.training_state import TrainingState, build_model
from tests.coordinator.hub_stand_in import HubStandIn
from tests.coordinator.test_checkpoints import SPEC, advance, new_state

DOCUMENTS = {"README.md": "---\nlanguage: ru\n---\n# card\n", "loss.svg": "<svg/>"}


@pytest.fixture(scope="module")
def checkpoints(prepared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    tokenizer = load_tokenizer(prepared_data / "tokenizer")
    state, store = new_state(tokenizer), CheckpointStore(folder, SPEC.run_id, keep=9)
    for loss in (3.0, 1.0, 2.0):
        store.write(state, tokenizer, train_loss=None, heldout_loss=loss, documents=DOCUMENTS)
        advance(state)
    return folder


@pytest.fixture
def hub(monkeypatch):
    hub = HubStandIn()
    monkeypatch.setenv("HF_ENDPOINT", hub.address)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.delenv("HF_HUB_DISABLE_XET", raising=False)
    yield hub
    hub.stop()


@pytest.mark.parametrize(("wanted", "step"), [("latest", 2), ("best", 1), ("0", 0)])
def test_a_checkpoint_is_chosen_by_name(checkpoints, wanted, step):
    assert choose_checkpoint(checkpoints, wanted).step == step


def test_an_export_has_what_users_need_and_a_full_one_is_a_checkpoint(checkpoints, tmp_path):
    chosen = choose_checkpoint(checkpoints, "best")
    export_checkpoint(chosen, tmp_path / "a" / "public")
    names = {path.name for path in (tmp_path / "a" / "public").iterdir()}
    assert {"README.md", "loss.svg", "config.json", "model.safetensors", "tokenizer.json"} <= names
    assert {"modeling_lean_albert.py", "configuration_lean_albert.py"} <= names
    assert not {"optimizer.safetensors", "manifest.json"} & names
    export_checkpoint(chosen, tmp_path / "full", with_optimizer=True)
    assert find_damage(tmp_path / "full") is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "full"]


def test_what_is_there_is_never_overwritten_and_what_is_not_there_is_told(checkpoints, tmp_path):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(BadInput, match="exists already"):
        export_checkpoint(choose_checkpoint(checkpoints, "latest"), tmp_path)
    with pytest.raises(BadInput, match="no checkpoint of step 7: give latest, best or one of 0, 1, 2"):
        choose_checkpoint(checkpoints, "7")
    with pytest.raises(BadInput, match="holds no checkpoint"):
        choose_checkpoint(tmp_path, "latest")


def test_a_checkpoint_gets_to_the_hub_although_the_hub_fails_at_first(checkpoints, hub, tmp_path):
    hub.failures = 1
    happened: queue.Queue[Event] = queue.Queue()
    publisher = Publisher("team/lean", RunDirectory(tmp_path), happened.put, first_pause=0.05)
    publisher.start()
    started = time.monotonic()
    publisher.offer(choose_checkpoint(checkpoints, "latest"))
    assert time.monotonic() - started < 0.5, "offering waits for the upload"
    failed = happened.get(timeout=60)
    assert failed.kind == "publish_failed"
    assert "500" in failed.sentence
    assert happened.get(timeout=60).sentence == "checkpoint of step 2 uploaded to team/lean"
    weights = (checkpoints / "step-00000002" / "model.safetensors").read_bytes()
    assert hub.files["model.safetensors"] == weights
    assert hub.files["README.md"].decode() == DOCUMENTS["README.md"]
    assert not {"optimizer.safetensors", "manifest.json"} & set(hub.files)
    assert hub.messages == ["step 2"]
    # plain LFS, also where hf-xet is installed
    assert any(path.endswith("/info/lfs/objects/batch") for path in hub.asked)
    assert not [path for path in hub.asked if "xet" in path]
    assert hub.token == "Bearer hf_secret"
    assert not (tmp_path / ".publishing").exists()


def test_a_newer_checkpoint_takes_the_place_of_one_that_fails(checkpoints, tmp_path):
    tried: queue.Queue[str] = queue.Queue()
    happened: queue.Queue[Event] = queue.Queue()

    def upload(_folder, _repository, message):
        tried.put(message)
        if message == "step 0":
            raise ConnectionError("no network")

    publisher = Publisher("team/lean", RunDirectory(tmp_path), happened.put, upload, first_pause=60.0)
    publisher.start()
    publisher.offer(choose_checkpoint(checkpoints, "0"))
    assert tried.get(timeout=10) == "step 0"
    assert "no network" in happened.get(timeout=10).sentence
    publisher.offer(choose_checkpoint(checkpoints, "1"))
    assert tried.get(timeout=10) == "step 1"
    assert happened.get(timeout=10).kind == "published"


def test_an_upload_that_a_stop_cut_off_is_made_after_the_next_start_and_no_other(checkpoints, tmp_path):
    uploaded: queue.Queue[str] = queue.Queue()

    def start() -> Publisher:
        publisher = Publisher(
            "team/lean", RunDirectory(tmp_path), lambda _event: None, lambda *said: uploaded.put(said[2])
        )
        publisher.start()
        return publisher

    first = start()
    first.offer(choose_checkpoint(checkpoints, "0"))
    assert first.wait(timeout=10)
    second = start()
    second.offer(choose_checkpoint(checkpoints, "0"))
    assert second.wait(timeout=0), "uploaded twice"
    second.offer(choose_checkpoint(checkpoints, "1"))
    assert second.wait(timeout=10)
    assert list(uploaded.queue) == ["step 0", "step 1"]


def test_the_end_waits_for_peers_and_for_the_last_upload(checkpoints, tmp_path):
    may_upload, said = threading.Event(), list[str]()
    publisher = Publisher(
        "team/lean", RunDirectory(tmp_path), lambda _event: None, lambda *_: may_upload.wait()
    )
    publisher.start()
    ending, last = Ending(publisher, peers_seconds=60.0, say=said.append), choose_checkpoint(checkpoints, "2")
    assert not ending.is_over(last, peers_online=0)
    assert not ending.is_over(last, peers_online=0)
    assert said == [
        "waiting up to 4 h until the checkpoint of step 2 is uploaded to team/lean; Ctrl-C ends it"
    ]
    may_upload.set()
    assert publisher.wait(timeout=10)
    assert not ending.is_over(last, peers_online=1)
    assert ending.is_over(last, peers_online=0)


def test_neither_peers_nor_a_hub_keep_the_coordinator_for_ever(checkpoints, tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("coordinator.ending.time", clock)
    now, last = 0.0, choose_checkpoint(checkpoints, "2")
    unpublished = Ending(Publisher("", RunDirectory(tmp_path), print), peers_seconds=60.0, say=print)
    assert not unpublished.is_over(last, peers_online=1)
    now = 60.0
    assert unpublished.is_over(last, peers_online=1)
    never = Ending(Publisher("team/lean", RunDirectory(tmp_path), print), peers_seconds=60.0, say=print)
    assert not never.is_over(last, peers_online=0)
    now += LONGEST_UPLOAD_SECONDS
    with pytest.raises(OperationFailed, match="step 2, was not uploaded to team/lean within 4 h"):
        never.is_over(last, peers_online=0)


@pytest.mark.heavy
def test_a_coordinator_ends_with_its_run_when_the_last_checkpoint_is_published(
    make_swarm, make_spec, prepared_data, hub
):
    """It was stopped after it had copied the last state and before it had written its checkpoint."""
    spec_path = make_spec(training={"total_steps": 6}, checkpoints={"publish": "team/lean"})
    swarm, spec = make_swarm(spec_path), load_spec(spec_path)
    tokenizer = load_tokenizer(prepared_data / "tokenizer")
    model = build_model(spec, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id)
    state = TrainingState(spec, model)
    advance(state, 6)
    swarm.run_dir.mkdir()
    write_last_state(swarm.run_dir / "last_state.safetensors", state.snapshot(), spec.run_id)
    assert swarm.start_coordinator("--exit-when-finished", wait=False).wait(180) == 0
    assert swarm.status()["checkpoints"][-1]["step"] == 6
    assert hub.messages == ["step 6"]
