"""The process that judges and writes: what it does, what follows when it hangs, and that it dies with its parent."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from coordinator.checkpoint_worker import CheckpointFailed, CheckpointWorker, Verdict
from coordinator.checkpoints import Checkpoint, CheckpointStore, find_damage, read_checkpoint
from coordinator.events import Event
from coordinator.last_state import read_last_state
from coordinator.state_keeper import RETRY_SECONDS, Resumed, StateKeeper
from data_prep.tokenizer import load_tokenizer
from swarm.clock import MAX_DONORS, SwarmView
from swarm.errors import OperationFailed
from swarm.identity import Identity
from swarm.records import Lease
from swarm.settings import RunSettings, SettingsEntry, SettingsPlan
from swarm.snapshot import Snapshot
from swarm.state_sharing import StateUnavailable, StateUnfit
from swarm.states import PeerState
from swarm.training_state import TrainingState
from tests.coordinator.test_checkpoints import SPEC, advance, new_state

DONOR = Identity.generate().peer_id
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "checkpoints").mkdir()
    return folder


@pytest.fixture(scope="module")
def worker(prepared_data, folder) -> Iterator[CheckpointWorker]:
    worker = CheckpointWorker(SPEC, prepared_data, folder / "checkpoints", folder / "last_state.safetensors")
    yield worker
    worker.close()
    assert worker.pid is None


@pytest.fixture
def state(prepared_data) -> TrainingState:
    torch.set_num_threads(1)
    return new_state(load_tokenizer(prepared_data / "tokenizer"))


def test_a_good_state_is_kept_and_written_with_its_card(worker, folder, state):
    advance(state, 2)
    verdict = worker.judge(state.snapshot(), limit=1.5 * math.log(448))
    assert verdict.good
    kept = read_last_state(folder / "last_state.safetensors", SPEC.run_id, state.layouts)
    assert kept is not None
    assert kept.step == 2

    contributors = [("otter-17", 640), ("<b>|lynx", 64)]
    run = {"samples": 704, "peers": 2, "contributors": contributors, "train_curve": [(0, 6.1), (1, 6.0)]}
    checkpoint = worker.write(state.snapshot(), 6.0, run)
    assert checkpoint.heldout_loss == pytest.approx(verdict.loss, rel=0.2)
    assert 0.0 <= checkpoint.heldout_accuracy < 0.2
    assert set(checkpoint.heldout_by_source) == {"made-up"}
    assert find_damage(checkpoint.path) is None
    card = (checkpoint.path / "README.md").read_text()
    for words in ("language: ru", SPEC.run_id, "| samples | 704 |", "| otter-17 | 640 |", "| blynx | 64 |"):
        assert words in card
    assert str(folder) not in card
    assert "<polyline" in (checkpoint.path / "loss.svg").read_text()


def test_a_state_above_the_limit_is_not_kept(worker, folder, state):
    advance(state, 9)
    before = (folder / "last_state.safetensors").read_bytes()
    verdict = worker.judge(state.snapshot(), limit=0.1)
    assert not verdict.good
    assert math.isfinite(verdict.loss)
    assert (folder / "last_state.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("went back", lambda state: scaled(state, 1.0, step=4), "the run is at step 5 already"),
        ("ends the run", lambda state: scaled(state, 1.0, step=10**6), "nobody can be there yet"),
        ("explodes", lambda state: scaled(state, 60.0, step=7), "held-out loss is"),
        ("not finite", lambda state: scaled(state, 1e30, step=7), "held-out loss is not finite"),
        (
            "unfit",
            StateUnfit("tensor 3 has values that are not finite, or too few"),
            "values that are not finite",
        ),
    ],
)
def test_a_state_is_refused_with_an_event_that_says_why(worker, state, name, make, reason):
    advance(state, 5)
    happened: list[Event] = []
    sent = make if isinstance(make, Exception) else make(state)
    keeper = StateKeeper(state, Donor(sent), Board(), worker, happened.append)
    keeper.start(Resumed(read_checkpoint_of(worker, state), time.time()))
    before = [tensor.clone() for tensor in state.snapshot().tensors]
    assert keeper.follow(view_of(step=7), train_loss=None) is None
    assert [event.kind for event in happened] == ["refused"]
    assert reason in happened[0].sentence
    assert DONOR in happened[0].sentence
    assert state.step == 5
    assert all(torch.equal(a, b) for a, b in zip(before, state.snapshot().tensors, strict=True))
    assert keeper.follow(view_of(step=7), train_loss=None) is None
    assert len(happened) == 1, "a donor whose state was refused was asked again at once"


def test_a_silent_donor_is_no_event_and_a_good_one_is_followed(worker, state):
    happened: list[Event] = []
    checkpoint = read_checkpoint_of(worker, state)
    silent = StateKeeper(state, Donor(StateUnavailable("silent")), Board(), worker, happened.append)
    silent.start(Resumed(checkpoint, time.time()))
    assert silent.follow(view_of(step=120), train_loss=None) is None
    keeper = StateKeeper(state, Donor(scaled(state, 1.0, step=120)), Board(), worker, happened.append)
    keeper.start(Resumed(checkpoint, time.time()))
    changed = RunSettings.of(SPEC).model_copy(update={"target_batch_size": 7})
    state.settings.take(3, "12D3KooWissuer", [SettingsEntry(from_step=100, settings=changed)])
    made = keeper.follow(view_of(step=120, text_position=1.5), train_loss=2.0)
    assert (made.step, state.step, happened) == (120, 120, [])
    assert SettingsPlan.model_validate(made.settings) == state.settings.changed
    assert json.loads((made.path / "manifest.json").read_bytes())["text_positions"] == {DONOR: 1.5}


@pytest.mark.heavy
def test_a_write_that_hangs_is_killed_at_the_limit_and_the_next_one_works(worker, folder, state):
    advance(state, 30)
    worker.judge(state.snapshot(), limit=math.inf)
    child = worker.pid
    worker.timeout = 1.5
    os.kill(child, signal.SIGSTOP)
    with pytest.raises(
        CheckpointFailed, match=r"step 30 was given up: not done within 1\.5 s .checkpoints\.timeout"
    ):
        worker.write(state.snapshot(), None)
    assert worker.pid is None
    (folder / "checkpoints" / ".writing-left").mkdir()
    worker.timeout = 120.0
    checkpoint = worker.write(state.snapshot(), None)
    assert worker.pid not in (None, child)
    assert find_damage(checkpoint.path) is None
    assert not list((folder / "checkpoints").glob(".writing-*"))


def test_a_child_that_is_killed_while_it_works_is_an_error_with_a_reason(worker, state):
    advance(state, 40)
    worker.judge(state.snapshot(), limit=math.inf)
    os.kill(worker.pid, signal.SIGSTOP)
    threading.Timer(0.5, os.kill, (worker.pid, signal.SIGKILL)).start()
    with pytest.raises(CheckpointFailed, match="its process ended with code -9"):
        worker.write(state.snapshot(), None)


def test_a_checkpoint_that_failed_is_tried_again_after_a_while(state, monkeypatch, tmp_path):
    now = time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr("coordinator.state_keeper.time", clock)
    disk = FullDisk(tmp_path)
    keeper = StateKeeper(state, Donor(scaled(state, 1.0, step=120)), Board(), disk, lambda _event: None)
    keeper.start(Resumed(disk.checkpoint(0), time.time()))
    with pytest.raises(CheckpointFailed, match="No space left"):
        keeper.follow(view_of(step=120), train_loss=None)
    assert state.step == 120, "the state was good, though its checkpoint failed"
    assert keeper.follow(view_of(step=120), train_loss=None) is None
    assert disk.attempts == 1, "tried again at once"
    disk.free = True
    now += RETRY_SECONDS
    assert keeper.follow(view_of(step=120), train_loss=None).step == 120
    assert keeper.follow(view_of(step=120), train_loss=None) is None


def test_a_state_that_one_of_several_donors_spoils_is_fetched_from_each_until_it_is_known(worker, state):
    good, bad = scaled(state, 1.0, step=10), scaled(state, 60.0, step=10)
    liar, *honest = order_of_asking(3)
    donors = Donors(lambda asked: bad if liar in asked else good)
    happened: list[Event] = []
    keeper = StateKeeper(state, donors, Board(), worker, happened.append)
    keeper.start(Resumed(read_checkpoint_of(worker, state), time.time()))
    keeper.follow(view_of(step=10, donors=[liar, *honest]), train_loss=None)
    assert state.step == 10
    assert [set(asked) for asked in donors.asked] == [{liar, *honest}, {liar}, {honest[0]}]
    assert [(event.kind, event.data["donor"]) for event in happened] == [("refused", liar)]


def test_donors_that_are_too_slow_are_asked_last_the_next_time(state, tmp_path, monkeypatch):
    now = time.monotonic()
    clock = SimpleNamespace(monotonic=lambda: now, time=time.time)
    monkeypatch.setattr("coordinator.state_keeper.time", clock)
    monkeypatch.setattr("coordinator.donor_order.time", clock)
    names = order_of_asking(7)
    slow, fast = names[:MAX_DONORS], names[MAX_DONORS:]

    def answer(asked: Sequence[str]) -> Snapshot:
        nonlocal now
        if set(asked) <= set(slow):
            now += SPEC.averaging.download_timeout
            raise StateUnavailable("slower than the time allowed")
        return scaled(state, 1.0, step=state.step + 10)

    donors, disk = Donors(answer), FullDisk(tmp_path)
    keeper = StateKeeper(state, donors, Board(), disk, lambda _event: None)
    keeper.start(Resumed(disk.checkpoint(0), time.time()))
    for step in (10, 20):
        keeper.follow(view_of(step, donors=names), train_loss=None)
        assert state.step == step
    assert donors.asked == [tuple(slow), tuple(fast), tuple(fast)]
    keeper.follow(view_of(step=30, donors=slow), train_loss=None)
    assert donors.asked[3:] == [(donor,) for donor in slow], "asked all the same when there are no others"


@pytest.mark.parametrize(("newest", "kept"), [(50, 100), (100, 120)], ids=["a boundary", "the end"])
def test_a_checkpoint_that_was_due_before_a_restart_is_written_after_it(state, tmp_path, newest, kept):
    last = RunSettings.of(SPEC).model_copy(update={"total_steps": 120})
    state.settings.take(1, "12D3KooWissuer", [SettingsEntry(from_step=0, settings=last)])
    state.load(scaled(state, 1.0, step=kept))
    disk = FullDisk(tmp_path)
    keeper = StateKeeper(state, Donor(StateUnavailable("gone")), Board(), disk, lambda _event: None)
    keeper.start(Resumed(disk.checkpoint(newest), time.time()))
    with pytest.raises(CheckpointFailed):
        keeper.follow(SwarmView(now=time.time()), train_loss=None)
    assert not keeper.finished, "it would end without its last checkpoint"
    disk.free = True
    again = StateKeeper(state, Donor(StateUnavailable("gone")), Board(), disk, lambda _event: None)
    again.start(Resumed(disk.checkpoint(newest), time.time()))
    assert again.follow(SwarmView(now=time.time()), train_loss=None).step == kept
    assert again.finished == (kept == 120)
    assert again.follow(SwarmView(now=time.time()), train_loss=None) is None


def test_a_checkpoint_that_was_asked_for_in_vain_is_still_due_if_it_was_the_next_one(state, tmp_path):
    disk = FullDisk(tmp_path)
    keeper = StateKeeper(state, Donor(scaled(state, 1.0, step=120)), Board(), disk, lambda _event: None)
    keeper.start(Resumed(disk.checkpoint(0), time.time()))
    with pytest.raises(CheckpointFailed):
        keeper.checkpoint_now(view_of(step=120), train_loss=None)
    disk.free = True
    assert keeper.follow(view_of(step=120), train_loss=None).step == 120


@pytest.mark.parametrize(
    ("setting", "value", "reason"),
    [
        ("bundle", "no-such-bundle", "did not start: .*no-such-bundle"),
        ("parent", 1, "did not start: it ended with code -9"),
    ],
)
def test_a_child_that_does_not_start_is_an_error_each_time_it_is_asked(
    prepared_data, tmp_path, state, setting, value, reason
):
    (tmp_path / "checkpoints").mkdir()
    worker = CheckpointWorker(SPEC, prepared_data, tmp_path / "checkpoints", tmp_path / "last")
    worker._setup[setting] = str(tmp_path / value) if isinstance(value, str) else value
    worker.begin()
    for _ in range(2):
        with pytest.raises(CheckpointFailed, match=reason):
            worker.judge(state.snapshot(), limit=math.inf)
        assert worker.pid is None


def test_a_child_that_cannot_be_started_is_an_error(prepared_data, tmp_path, state, monkeypatch):
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-python"))
    worker = CheckpointWorker(SPEC, prepared_data, tmp_path, tmp_path / "last")
    with pytest.raises(CheckpointFailed, match=r"could not be started .No such file or directory"):
        worker.judge(state.snapshot(), limit=math.inf)


def test_weights_from_elsewhere_are_scored_once_there_is_a_bundle(worker, folder, state, prepared_data):
    """What a run begins with is written before its held-out set is made."""
    advance(state, 50)
    store = CheckpointStore(folder / "checkpoints", SPEC.run_id, keep=3)
    tokenizer = load_tokenizer(prepared_data / "tokenizer")
    more = {"begun_with": "rulean"}
    begun = store.write(state, tokenizer, train_loss=None, heldout_loss=None, more=more)
    keeper = StateKeeper(state, Donor(StateUnavailable("silent")), Board(), worker, lambda _event: None)
    keeper.start(Resumed(begun, time.time()))
    # not the newest one: other tests write here, too
    scored = read_checkpoint(begun.path)
    assert scored is not None
    assert (scored.step, scored.begun_with) == (50, "rulean")
    assert scored.heldout_loss > 0
    assert keeper.last_checkpoint == scored
    assert "| began with the weights in | rulean |" in (scored.path / "README.md").read_text()
    again = StateKeeper(state, Donor(StateUnavailable("silent")), Board(), worker, lambda _event: None)
    again.start(Resumed(scored, time.time()))
    assert again.last_checkpoint is scored, "scored twice"


@pytest.mark.heavy
def test_it_dies_with_its_parent(prepared_data, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    program = (
        "import sys, time; from pathlib import Path\n"
        "from coordinator.checkpoint_worker import CheckpointWorker\n"
        "from swarm.spec import RunSpec\n"
        "bundle, folder = map(Path, sys.argv[1:3])\n"
        "spec = RunSpec.model_validate_json(sys.argv[3])\n"
        "worker = CheckpointWorker(spec, bundle, folder / 'checkpoints', folder / 'last')\n"
        "worker.begin(); worker._wait_until_ready(worker._process); print(worker.pid, flush=True); time.sleep(600)\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(prepared_data), str(tmp_path), SPEC.model_dump_json()],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while (
        Path(f"/proc/{child}/status").exists()
        and "Z (zombie)" not in Path(f"/proc/{child}/status").read_text()
    ):
        assert time.monotonic() < deadline, "the child outlives its parent"
        time.sleep(0.05)


def test_a_disk_that_fills_up_leaves_the_checkpoints_that_are_there(prepared_data, tmp_path, state):
    """On a real file system of a few checkpoints' size."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)], capture_output=True, check=False
        ).returncode
    ):
        pytest.skip("mounting a small disk needs root and a container that allows it")
    try:
        tokenizer = load_tokenizer(prepared_data / "tokenizer")
        store = CheckpointStore(disk, SPEC.run_id, keep=100)
        with pytest.raises(OperationFailed, match="could not be written"):
            write_without_end(store, state, tokenizer)
        assert state.step > 2, "the disk is too small for this test"
        assert store.newest_intact().step == state.step - 1
        assert find_damage(disk / "latest") is None
        assert not list(disk.glob(".writing-*"))
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def write_without_end(store: CheckpointStore, state: TrainingState, tokenizer) -> None:
    while True:
        advance(state)
        store.write(state, tokenizer, train_loss=None, heldout_loss=1.0)


def scaled(state: TrainingState, factor: float, step: int) -> Snapshot:
    """The state with all parameters multiplied, at another step."""
    count, tensors = len(state.parameters), state.snapshot().tensors
    return Snapshot(step, "", [*(tensor * factor for tensor in tensors[:count]), *tensors[count:]])


def read_checkpoint_of(worker: CheckpointWorker, state: TrainingState):
    return read_checkpoint(worker.write(state.snapshot(), None).path)


def view_of(step: int, text_position: float = 0.0, donors: Sequence[str] = (DONOR,)) -> SwarmView:
    now = time.time()
    lease = Lease(
        run_id=SPEC.run_id,
        issued=now,
        expires=now + 20,
        state=PeerState.TRAINING,
        step=step,
        samples=0,
        text_position=text_position,
    )
    return SwarmView(now=now, leases=dict.fromkeys(donors, lease))


class Donor:
    """Answers every request for a state in the same way."""

    def __init__(self, answer: Snapshot | Exception):
        self.answer = answer

    def download_state(self, *donors: str, layouts, timeout: float) -> Snapshot:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Donors:
    """Answer as a function of who is asked says, or raises."""

    def __init__(self, answer: Callable[[Sequence[str]], Snapshot]):
        self.answer, self.asked = answer, list[tuple[str, ...]]()

    def download_state(self, *donors: str, layouts, timeout: float) -> Snapshot:
        self.asked.append(donors)
        return self.answer(donors)


def order_of_asking(count: int) -> list[str]:
    """Peer ids in the order in which the keeper asks equals."""
    ids = [Identity.generate().peer_id for _ in range(count)]
    return view_of(step=1, donors=ids).donors(1, Board.identity.peer_id)


class Board:
    """Takes every record."""

    identity = Identity.generate()

    def publish(self, record) -> bool:
        return True


class FullDisk:
    """Judges every state as good and cannot write one until there is room."""

    def __init__(self, folder: Path):
        self.folder, self.free, self.attempts = folder, False, 0

    def judge(self, snapshot: Snapshot, limit: float, keep: bool = True) -> Verdict:
        return Verdict(1.0, "0" * 64, True)

    def write(self, snapshot: Snapshot, train_loss: float | None, run=None, kept=None) -> Checkpoint:
        self.attempts += 1
        if not self.free:
            raise CheckpointFailed("checkpoint could not be written (No space left on device)")
        return self.checkpoint(snapshot.step)

    def checkpoint(self, step: int) -> Checkpoint:
        return Checkpoint(self.folder, step, "", SPEC.run_id, None, 1.0, "", time.time())
