"""Signed records: only the owner's word counts, and only for its run, kind and time."""

from __future__ import annotations

import time

import pytest
from hivemind.dht import DHTID
from hivemind.dht.validation import DHTRecord
from hivemind.utils.serializer import MSGPackSerializer
from hypothesis import given
from hypothesis import strategies as st

from swarm.admission import Admission
from swarm.identity import Identity, verify
from swarm.records import (
    DeviceReading,
    HeadRecord,
    Lease,
    PeerRecord,
    RunRecordValidator,
    dht_key,
    pack_record,
    unpack_record,
)
from swarm.states import PeerState

RUN = "run-0123"
ALICE, BOB = Identity.generate(), Identity.generate()


def lease(**changes) -> Lease:
    now = time.time()
    facts = {
        "run_id": RUN,
        "issued": now,
        "expires": now + 10,
        "state": PeerState.TRAINING,
        "step": 3,
        "samples": 8,
    }
    return Lease(**{**facts, **changes})


def dht_record(record, packed: bytes, owner: str, expires: float | None = None) -> DHTRecord:
    return DHTRecord(
        key=DHTID.generate(source=dht_key(RUN, type(record))).to_bytes(),
        subkey=MSGPackSerializer.dumps(owner),
        value=MSGPackSerializer.dumps(packed),
        expiration_time=record.expires if expires is None else expires,
    )


def test_a_record_comes_back_as_it_was():
    record = lease()
    assert unpack_record(Lease, pack_record(record, ALICE), ALICE.peer_id, RUN) == record


def test_a_record_under_anothers_name_is_refused():
    packed = pack_record(lease(), ALICE)
    assert unpack_record(Lease, packed, BOB.peer_id, RUN) is None


def test_a_record_of_another_run_or_kind_is_refused():
    packed = pack_record(lease(), ALICE)
    assert unpack_record(Lease, packed, ALICE.peer_id, "another-run") is None
    assert unpack_record(HeadRecord, packed, ALICE.peer_id, RUN) is None


def test_a_changed_byte_is_noticed():
    packed = bytearray(pack_record(lease(samples=8), ALICE))
    position = packed.index(b'"samples":8') + len(b'"samples":')
    packed[position] = ord("9")
    assert unpack_record(Lease, bytes(packed), ALICE.peer_id, RUN) is None


@given(st.binary(max_size=300))
def test_garbage_is_refused_quietly(raw):
    assert unpack_record(Lease, raw, ALICE.peer_id, RUN) is None
    record = DHTRecord(
        key=DHTID.generate(source=dht_key(RUN, Lease)).to_bytes(), subkey=raw, value=raw, expiration_time=1.0
    )
    assert RunRecordValidator(Admission(RUN, ())).validate(record) is False


def test_the_validator_takes_the_owners_record_and_nobody_elses():
    validator = RunRecordValidator(Admission(RUN, [BOB.peer_id]))
    record = lease()
    packed = pack_record(record, ALICE)
    assert validator.validate(dht_record(record, packed, ALICE.peer_id))
    assert not validator.validate(dht_record(record, packed, BOB.peer_id))


def test_a_record_cannot_outlive_what_its_owner_signed():
    validator = RunRecordValidator(Admission(RUN, ()))
    record = lease()
    replayed = dht_record(record, pack_record(record, ALICE), ALICE.peer_id, expires=record.expires + 3600)
    assert not validator.validate(replayed)


def test_only_a_coordinator_may_publish_a_head():
    now = time.time()
    head = HeadRecord(run_id=RUN, issued=now, expires=now + 60, step=10, reached=now, state_digest="0" * 64)
    validator = RunRecordValidator(Admission(RUN, [BOB.peer_id]))
    assert validator.validate(dht_record(head, pack_record(head, BOB), BOB.peer_id))
    assert not validator.validate(dht_record(head, pack_record(head, ALICE), ALICE.peer_id))


@pytest.mark.parametrize(
    "changes",
    [
        {"step": -1},
        {"samples": "8"},
        {"expires": float("nan")},
        {"samples": 2**53 - 1},
        {"samples_computed": 2**53 - 1},
        {"samples_per_second": 1e300},
        {"text_position": 1e300},
        {"state": "asleep"},
        {"addresses": ("127.0.0.1:80",)},
        {"addresses": ("/ip4/192.0.2.1/tcp/1",) * 5},
        {"addresses": ("/dns/" + "a" * 200 + "/tcp/1",)},
    ],
)
def test_impossible_values_cannot_be_written(changes):
    with pytest.raises(ValueError, match="validation error"):
        lease(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"samples_per_second": 1.7e308},
        {"loss": 1.7e308},
        {"loss": -1.7e308},
        {"round_seconds": 1e300},
        {"round_group": 2**53 - 1},
        {"rounds_failed": 2**53 - 1},
        {"samples_contributed": 2**53 - 1},
        {"reloads": {"fell behind": 2**53 - 1}},
        {"devices": (DeviceReading.model_construct(utilization=0.0, memory=0.0, power=1e300),)},
    ],
)
def test_what_no_peer_can_do_is_refused_at_the_door(changes):
    now = time.time()
    claim = PeerRecord(
        run_id=RUN,
        issued=now,
        expires=now + 10,
        name="liar",
        version="1",
        state=PeerState.TRAINING,
        device="cpu",
        global_step=1,
    )
    honest = pack_record(claim, ALICE)
    assert unpack_record(PeerRecord, honest, ALICE.peer_id, RUN) is not None
    forged = pack_record(claim.model_copy(update=changes), ALICE)
    assert unpack_record(PeerRecord, forged, ALICE.peer_id, RUN) is None


def test_an_identity_survives_its_file(tmp_path):
    path = tmp_path / "identity.key"
    first = Identity.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    again = Identity.load_or_create(path)
    assert again.peer_id == first.peer_id
    assert verify(first.peer_id, b"words", again.sign(b"words"))
    assert not verify(first.peer_id, b"other words", again.sign(b"words"))
