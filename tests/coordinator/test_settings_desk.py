"""Changing settings while the run goes on: the step they hold from, what is refused, what outlives a coordinator."""

from __future__ import annotations

import time

import pytest

from coordinator.admission_desk import AdmissionDesk
from coordinator.settings_desk import NotNow, SettingsDesk
from swarm.admission import Admission
from swarm.clock import SwarmView
from swarm.errors import BadInput, OperationFailed
from swarm.identity import Identity
from swarm.records import Lease, RunRecordValidator, SettingsRecord, dht_key, pack_record
from swarm.settings import MAX_ENTRIES, RunSettings, SettingsBook
from swarm.spec import RunSpec
from swarm.states import PeerState
from swarm.warrant import write_warrant

SPEC = RunSpec(
    name="settings",
    training={"total_steps": 1000, "warmup_steps": 10, "target_batch_size": 64, "learning_rate": 1.0},
    leases={"period": 1.0, "expiration": 4.0},
)


class Swarm:
    """A board and what the desk sees: `peers` at `step`, one global step every `seconds`."""

    def __init__(self, path, identity: Identity | None = None):
        self.identity = identity or Identity.generate()
        self.run_id = SPEC.run_id
        self.step, self.peers, self.seconds = 100, 2, 1.0
        self.published: list[SettingsRecord] = []
        self.others: dict[str, SettingsRecord] = {}
        self.announced: list[str] = []
        self.book = SettingsBook(SPEC)
        self.admission = Admission(SPEC.run_id, [self.identity.peer_id], by_invitation=True)
        self.admission_desk = AdmissionDesk(
            self,
            path / "admission.json",
            lambda event: self.announced.append(event.kind),
            "",
            by_invitation=True,
        )
        self.desk = SettingsDesk(
            self.book,
            self,
            path / "settings.json",
            self.look,
            lambda event: self.announced.append(event.kind),
        )

    def look(self) -> tuple[SwarmView, float]:
        now = time.time()
        lease = Lease(
            run_id=SPEC.run_id,
            issued=now,
            expires=now + 4,
            state=PeerState.TRAINING,
            step=self.step,
            samples=1,
        )
        head = None if self.peers else Head(self.step)
        return SwarmView(
            now=now, leases={f"peer-{i}": lease for i in range(self.peers)}, head=head
        ), self.seconds

    def publish(self, record: SettingsRecord) -> bool:
        self.published.append(record)
        return True

    def read(self, _kind) -> dict[str, SettingsRecord]:
        return self.others


class Head:
    def __init__(self, step: int):
        self.step = step


@pytest.fixture
def swarm(tmp_path) -> Swarm:
    return Swarm(tmp_path)


def test_a_change_holds_from_a_step_that_everyone_hears_of_in_time(swarm):
    change = swarm.desk.change({"target_batch_size": 128})
    # three lease periods and two seconds, at a step a second, and the one that is being made
    assert (change.version, change.from_step) == (1, 106)
    assert swarm.book.at(105).target_batch_size == 64
    assert swarm.book.at(106).target_batch_size == 128
    assert swarm.published[0].entries == swarm.book.entries
    swarm.seconds = 60.0
    swarm.step = 200
    assert swarm.desk.change({"target_batch_size": 32}).from_step == 202


def test_a_learning_rate_and_a_last_step_are_taken_over_by_the_schedule(swarm):
    before = swarm.book.learning_rate_at(150)
    step = swarm.desk.change({"learning_rate_scale": 0.5}).from_step
    assert swarm.book.learning_rate_at(150) == pytest.approx(before / 2)
    assert swarm.book.learning_rate_at(step - 1) == SPEC.learning_rate_at(step - 1)
    swarm.desk.change({"total_steps": 500})
    assert swarm.book.learning_rate_at(499) == pytest.approx(0.5 / 490)
    assert swarm.book.is_finished_at(500)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "nothing to change"),
        ({"seed": 3}, "seed cannot change"),
        ({"target_batch_size": 0}, "target_batch_size cannot be 0"),
        ({"target_batch_size": 2**40}, "target_batch_size cannot be"),
        ({"learning_rate_scale": 0.0}, "learning_rate_scale cannot be"),
        ({"learning_rate_scale": float("nan")}, "learning_rate_scale cannot be"),
        ({"learning_rate_scale": 1e9}, "learning_rate_scale cannot be"),
        ({"checkpoint_every_steps": 0}, "checkpoint_every_steps cannot be 0"),
        ({"total_steps": 5}, "total_steps cannot be 5: it must be more than 106"),
    ],
)
def test_what_cannot_be_is_refused_and_changes_nothing(swarm, changes, words):
    with pytest.raises(BadInput, match=words):
        swarm.desk.change(changes)
    assert (swarm.book.version, swarm.published) == (0, [])


def test_pause_and_resume(swarm):
    with pytest.raises(NotNow, match="not paused"):
        swarm.desk.resume()
    step = swarm.desk.pause().from_step
    assert not swarm.book.at(step - 1).paused
    assert swarm.book.at(step).paused
    with pytest.raises(NotNow, match="paused already"):
        swarm.desk.pause()
    swarm.step = step
    assert swarm.desk.resume().from_step == step, "a paused run gets to no further step"
    assert not swarm.book.at(step).paused
    assert swarm.announced == ["paused", "resumed"]


def test_a_run_without_peers_is_paused_and_finished_at_once(swarm):
    swarm.desk.pause()
    swarm.peers = 0
    assert swarm.desk.resume().from_step == 100
    assert not swarm.book.at(100).paused
    assert not swarm.book.at(10_000).paused
    assert swarm.desk.finish().from_step == 100
    assert swarm.book.is_finished_at(100)
    with pytest.raises(NotNow, match="finished, at step 100"):
        swarm.desk.change({"target_batch_size": 1})


def test_finish_ends_a_paused_run_and_cannot_be_asked_for_twice(swarm):
    swarm.desk.pause()
    settings = swarm.desk.finish().settings
    assert not settings.paused
    with pytest.raises(NotNow, match="ends at step 106 already"):
        swarm.desk.finish()


def test_changes_outlive_the_coordinator(swarm, tmp_path):
    swarm.desk.change({"target_batch_size": 128})
    again = Swarm(tmp_path, swarm.identity)
    again.desk.load()
    assert (again.book.version, again.book.entries) == (1, swarm.book.entries)
    again.desk.renew()
    assert again.published[0].version == 1
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(OperationFailed, match=r"settings\.json cannot be read"):
        Swarm(tmp_path).desk.load()


def test_a_change_that_cannot_be_kept_is_not_made(tmp_path):
    swarm = Swarm(tmp_path / "gone")
    with pytest.raises(OperationFailed, match="could not be kept"):
        swarm.desk.change({"target_batch_size": 128})
    assert (swarm.book.version, swarm.published) == (0, [])


def test_another_coordinators_newer_change_is_taken_over_and_published_by_both(swarm, tmp_path):
    (tmp_path / "other").mkdir()
    other = Swarm(tmp_path / "other")
    other.desk.change({"target_batch_size": 128})
    swarm.others = {other.identity.peer_id: other.published[0]}
    swarm.desk.renew()
    assert swarm.book.at(106).target_batch_size == 128
    assert swarm.published[0].issuer == other.identity.peer_id
    assert swarm.desk.change({"target_batch_size": 8}).version == 2


def test_many_changes_fit_into_one_record(swarm):
    for number in range(1, 30):
        swarm.desk.change({"target_batch_size": number})
        swarm.step += 3
    assert len(swarm.book.entries) <= MAX_ENTRIES
    assert len(pack_record(swarm.published[-1], swarm.identity)) < 4096
    assert swarm.book.at(10_000).target_batch_size == 29


def test_only_coordinators_can_publish_settings(swarm):
    """What a node of the DHT checks before it stores or believes a record."""
    authority, deputy, stranger = swarm.identity, Identity.generate(), Identity.generate()
    swarm.desk.change({"target_batch_size": 128})
    record = swarm.published[0]
    warranted = record.model_copy(update={"warrant": write_warrant(authority, SPEC.run_id, deputy.peer_id)})
    validator = RunRecordValidator(Admission(SPEC.run_id, [authority.peer_id]))
    assert validator.validate(as_stored(record, authority))
    assert validator.validate(as_stored(warranted, deputy))
    assert not validator.validate(as_stored(record, stranger))
    assert not validator.validate(as_stored(warranted, stranger))
    bad = record.model_copy(update={"entries": (record.entries[0].model_copy(update={"from_step": -1}),)})
    assert not validator.validate(as_stored(bad, authority))


def as_stored(record: SettingsRecord, owner: Identity):
    from hivemind.dht import DHTID
    from hivemind.dht.validation import DHTRecord
    from hivemind.utils.serializer import MSGPackSerializer

    return DHTRecord(
        DHTID.generate(source=dht_key(SPEC.run_id, SettingsRecord)).to_bytes(),
        MSGPackSerializer.dumps(owner.peer_id),
        MSGPackSerializer.dumps(pack_record(record, owner)),
        record.expires,
    )


def test_settings_at_a_step_are_those_of_the_spec_before_any_change():
    book = SettingsBook(SPEC)
    assert book.at(0) == RunSettings.of(SPEC)
    assert [book.learning_rate_at(step) for step in (0, 9, 500)] == [
        SPEC.learning_rate_at(step) for step in (0, 9, 500)
    ]


def test_anothers_change_holds_although_it_cannot_be_kept_here(tmp_path):
    """The other coordinator keeps it too: our full disk must not end the run."""
    ours, theirs = Swarm(tmp_path / "gone"), Swarm(tmp_path)
    change = theirs.desk.change({"target_batch_size": 128})
    ours.others = {theirs.identity.peer_id: theirs.published[-1]}
    ours.desk.renew()
    assert ours.book.at(change.from_step).target_batch_size == 128
    with pytest.raises(OperationFailed, match="could not be kept"):
        ours.desk.pause()
