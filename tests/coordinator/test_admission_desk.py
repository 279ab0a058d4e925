"""The desk: whom an invitation admits, what a ticket is renewed for, who is evicted and by whose word."""

from __future__ import annotations

import asyncio
import json
import time

import pytest

from coordinator.admission_desk import LISTED_SECONDS, OFFENCES_BEFORE_EVICTION, AdmissionDesk
from coordinator.settings_desk import NotNow
from swarm.admission import Admission
from swarm.credentials import AdmissionAnswer, AdmissionRequest
from swarm.errors import BadInput, OperationFailed
from swarm.identity import Identity
from swarm.records import EvictionsRecord, PeerRecord
from swarm.states import PeerState
from swarm.ticket import TICKET_SECONDS, Role, write_ticket
from swarm.warrant import is_warranted, write_warrant
from tests.coordinator.runs import peer

RUN = "run-0123"


class Run:
    """A run's first coordinator with its desk; the board keeps what is published.

    :param first: that coordinator, for a further one, which shares its board
    """

    def __init__(self, folder, by_invitation: bool = True, first: Run | None = None):
        self.identity, self.run_id = Identity.generate(), RUN
        authority = (first or self).identity
        self.admission = Admission(RUN, [authority.peer_id], by_invitation=by_invitation)
        self.published: list[EvictionsRecord] = []
        self.records: dict[str, EvictionsRecord] = first.records if first is not None else {}
        self.events: list[tuple[str, str]] = []
        self.desk = AdmissionDesk(
            self,
            folder / "admission.json",
            lambda event: self.events.append((event.kind, event.sentence)),
            write_warrant(authority, RUN, self.identity.peer_id) if first is not None else "",
            by_invitation=by_invitation,
        )

    def publish(self, record: EvictionsRecord) -> bool:
        self.published.append(record)
        self.records[self.identity.peer_id] = record
        return True

    def read(self, _kind) -> dict[str, EvictionsRecord]:
        return dict(self.records)

    def evict(self, peer_id: str, reason: str = "sends junk") -> None:
        self.desk.evict(peer(1).model_copy(update={"peer_id": peer_id, "name": "anna"}), reason)

    def invite(self, machines: int = 1, role: Role = "peer", seconds: float = 60.0) -> str:
        return self.desk.invite("anna", role, seconds, machines)

    def ask(self, identity: Identity, **request: object) -> AdmissionAnswer:
        """What the desk answers to a call that libp2p says is from this identity."""

        class Context:
            remote_id = identity.peer_id

        raw = AdmissionRequest.model_validate(request).model_dump_json().encode()
        return AdmissionAnswer.model_validate_json(asyncio.run(self.desk._receive(raw, Context())))


@pytest.fixture
def run(tmp_path) -> Run:
    return Run(tmp_path)


@pytest.fixture
def second(run, tmp_path) -> Run:
    """A further coordinator of the same run."""
    (tmp_path / "second").mkdir()
    return Run(tmp_path / "second", first=run)


def test_an_invitation_admits_as_many_machines_as_it_says_and_the_same_one_again(run):
    token, anna, bert = run.invite(), Identity.generate(), Identity.generate()
    first = run.ask(anna, invitation=token).ticket
    assert first is not None
    assert run.admission.admits(anna.peer_id, first)
    assert run.ask(anna, invitation=token).ticket is not None
    assert "another machine" in run.ask(bert, invitation=token).refused
    assert not run.admission.admits(bert.peer_id, first)


@pytest.mark.parametrize("token", ["", "artel-", "artel-AAAA", "nonsense", "artel-" + "A" * 400])
def test_what_is_no_invitation_is_refused_in_words(run, token):
    assert run.ask(Identity.generate(), invitation=token).refused


def test_an_invitation_of_another_run_or_an_expired_one_is_refused(run, tmp_path):
    (tmp_path / "other").mkdir()
    assert "not signed" in run.ask(Identity.generate(), invitation=Run(tmp_path / "other").invite()).refused
    assert "expired" in run.ask(Identity.generate(), invitation=run.invite(seconds=-1.0)).refused


def test_a_ticket_is_renewed_for_its_owner_only(run):
    anna, bert = Identity.generate(), Identity.generate()
    ticket = run.ask(anna, invitation=run.invite()).ticket
    renewed = run.ask(anna, ticket=ticket).ticket
    assert renewed is not None
    assert renewed.name == "anna"
    assert run.ask(bert, ticket=ticket).ticket is None
    forged = write_ticket(bert, RUN, bert.peer_id, "bert")
    assert run.ask(bert, ticket=forged).ticket is None
    old = write_ticket(run.identity, RUN, anna.peer_id, "anna", seconds=-TICKET_SECONDS)
    assert "does not hold" in run.ask(anna, ticket=old).refused


def test_a_further_coordinator_gets_the_authoritys_warrant(run):
    deputy = Identity.generate()
    answer = run.ask(deputy, invitation=run.invite(role="coordinator"))
    assert is_warranted(answer.warrant, RUN, deputy.peer_id, [run.identity.peer_id])
    assert run.ask(Identity.generate(), invitation=run.invite()).warrant == ""


def test_an_eviction_is_published_kept_and_ends_the_invitation(run, tmp_path):
    anna, token = Identity.generate(), run.invite(machines=2)
    ticket = run.ask(anna, invitation=token).ticket
    run.evict(anna.peer_id)
    assert run.published[-1].peers == (anna.peer_id,)
    assert ("evicted", "anna was evicted: sends junk") in run.events
    assert not run.admission.admits(anna.peer_id, ticket)
    assert "sends junk" in run.ask(anna, ticket=ticket).refused
    assert "withdrawn" in run.ask(Identity.generate(), invitation=token).refused

    again = AdmissionDesk(run, tmp_path / "admission.json", lambda _event: None, "", by_invitation=True)
    again.load()
    again.renew()
    assert run.published[-1].peers == (anna.peer_id,)


def test_whom_one_coordinator_evicted_no_other_one_admits_or_renews(run, second):
    anna, token = Identity.generate(), run.invite(machines=2)
    ticket = run.ask(anna, invitation=token).ticket
    run.evict(anna.peer_id)
    second.desk.renew()
    assert "evicted" in second.ask(anna, ticket=ticket).refused
    assert "evicted" in second.ask(anna, invitation=second.invite()).refused
    assert not second.admission.admits(anna.peer_id, ticket)


def test_an_invitation_is_taken_only_by_the_coordinator_that_made_it(run, second):
    token = second.invite()
    assert second.identity.peer_id in run.ask(Identity.generate(), invitation=token).refused
    assert second.ask(Identity.generate(), invitation=token).ticket is not None
    assert "another machine" in second.ask(Identity.generate(), invitation=token).refused


def test_only_the_first_coordinator_invites_another_one(second):
    with pytest.raises(BadInput, match="first coordinator can invite another one"):
        second.invite(role="coordinator")


def test_an_invitation_is_withdrawn_whichever_coordinator_evicts_who_came_with_it(run, second):
    anna, token = Identity.generate(), run.invite(machines=2)
    assert run.ask(anna, invitation=token).ticket is not None
    second.evict(anna.peer_id)
    run.desk.renew()
    assert "withdrawn" in run.ask(Identity.generate(), invitation=token).refused


def test_an_eviction_outlives_the_machine_of_the_coordinator_that_decided_it(run, second, tmp_path):
    anna = Identity.generate()
    ticket = run.ask(anna, invitation=run.invite()).ticket
    run.evict(anna.peer_id)
    second.desk.renew()
    assert second.published[-1].peers == (anna.peer_id,)
    del run.records[run.identity.peer_id]

    again = Run(tmp_path / "second", first=run)
    again.desk.load()
    again.desk.renew()
    assert again.published[-1].peers == (anna.peer_id,)
    assert "evicted" in again.ask(anna, ticket=ticket).refused


def test_what_others_evict_takes_no_place_from_our_own_and_the_list_stays_bounded(run, second, monkeypatch):
    monkeypatch.setattr("coordinator.admission_desk.MAX_EVICTED", 2)
    theirs = [Identity.generate().peer_id for _ in range(2)]
    ours = Identity.generate().peer_id
    for peer_id in theirs:
        second.evict(peer_id)
    run.desk.renew()
    run.evict(ours)
    assert ours in run.published[-1].peers
    assert len(run.published[-1].peers) == 2
    assert run.admission.evicted == {*theirs, ours}


def test_the_list_of_the_evicted_is_bounded_and_old_evictions_make_room(run, tmp_path, monkeypatch):
    monkeypatch.setattr("coordinator.admission_desk.MAX_EVICTED", 2)
    old, *recent, another = (Identity.generate().peer_id for _ in range(4))
    long_ago = {"name": "old", "reason": "sent junk", "time": time.time() - LISTED_SECONDS - 1}
    (tmp_path / "admission.json").write_text(json.dumps({"evicted": {old: long_ago}}))
    run.desk.load()
    for peer_id in (*recent, recent[0]):
        run.evict(peer_id)
    assert run.published[-1].peers == tuple(sorted(recent))
    with pytest.raises(NotNow, match="within 14 days: wait"):
        run.evict(another)


def test_a_full_list_of_an_open_run_is_told_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("coordinator.admission_desk.MAX_EVICTED", 1)
    run = Run(tmp_path, by_invitation=False)
    run.evict(Identity.generate().peer_id)
    with pytest.raises(NotNow, match="should be by invitation"):
        run.evict(Identity.generate().peer_id)


def test_an_evicted_coordinator_evicts_nobody(run, second):
    anna = Identity.generate()
    second.evict(anna.peer_id)
    run.evict(second.identity.peer_id)
    run.desk.renew()
    assert anna.peer_id not in run.admission.evicted


def test_the_first_coordinator_cannot_be_evicted(run):
    with pytest.raises(BadInput, match="cannot be evicted"):
        run.desk.evict(peer(1).model_copy(update={"peer_id": run.identity.peer_id}), "")


def test_an_open_run_invites_nobody_but_evicts(tmp_path):
    run = Run(tmp_path, by_invitation=False)
    with pytest.raises(NotNow, match="open to everybody"):
        run.invite()
    anna = Identity.generate()
    run.desk.evict(peer(1).model_copy(update={"peer_id": anna.peer_id}), "junk")
    assert not run.admission.admits(anna.peer_id, None)


def test_books_that_cannot_be_written_change_nothing(tmp_path):
    run = Run(tmp_path / "missing")
    assert "cannot be written" in run.ask(Identity.generate(), invitation=run.invite()).refused


def test_damaged_books_are_an_error_that_names_the_file(run, tmp_path):
    (tmp_path / "admission.json").write_text('{"admitted": 3')
    with pytest.raises(OperationFailed, match=r"admission\.json cannot be read"):
        run.desk.load()


def accusing(**offences: int) -> PeerRecord:
    now = time.time()
    return PeerRecord(
        run_id=RUN,
        issued=now,
        expires=now + 5,
        name="x",
        version="0",
        state=PeerState.TRAINING,
        device="cpu",
        global_step=1,
        offences=offences,
    )


@pytest.mark.parametrize(
    ("accusations", "evicted"),
    [
        ([OFFENCES_BEFORE_EVICTION] * 3, True),
        ([OFFENCES_BEFORE_EVICTION, OFFENCES_BEFORE_EVICTION, 0], True),
        ([OFFENCES_BEFORE_EVICTION, 0, 0], False),  # one accuser may be the liar
        ([OFFENCES_BEFORE_EVICTION - 1] * 3, False),
        ([OFFENCES_BEFORE_EVICTION], False),  # of two peers nobody knows which
        ([OFFENCES_BEFORE_EVICTION] * 2 + [0] * 4, False),  # few of many
    ],
)
def test_who_spoils_rounds_is_evicted_by_the_word_of_most_others(run, accusations, evicted):
    accused = Identity.generate().peer_id
    others = [Identity.generate().peer_id for _ in accusations]
    records = {
        other: accusing(**({accused: count} if count else {}))
        for other, count in zip(others, accusations, strict=True)
    }
    # the accused accuses everybody
    records[accused] = accusing(**dict.fromkeys(others[:8], 99))
    peers = [
        peer(index).model_copy(update={"peer_id": each}) for index, each in enumerate([accused, *others])
    ]
    run.desk.judge(records, peers)
    assert (accused in run.admission.evicted) is evicted
    assert not set(others) & run.admission.evicted
