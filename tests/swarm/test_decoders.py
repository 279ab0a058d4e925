"""Whatever bytes the network brings, decoders answer with what they document: never with another exception, never
with something that was not sent."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hivemind.compression import NoCompression
from hivemind.dht import DHTID
from hivemind.dht.validation import DHTRecord
from hivemind.utils.serializer import MSGPackSerializer
from hypothesis import example, given
from hypothesis import strategies as st

from swarm.admission import Admission, parse_ticket
from swarm.bundle import parse_manifest
from swarm.credentials import AdmissionAnswer, AdmissionRequest
from swarm.errors import ArtelError
from swarm.identity import Identity
from swarm.records import RECORD_TYPES, EvictionsRecord, RunRecordValidator, dht_key, unpack_record
from swarm.snapshot import Layout
from swarm.tensor_stream import TensorCollector, UnfitTensors, pack_messages
from swarm.ticket import Invitation, read_invitation, write_invitation, write_ticket
from swarm.transfer import FileRequest, Refusal

RUN = "run-0123"
SECRET_CHARACTERS = 16
AUTHORITY, ALICE = Identity.generate(), Identity.generate()
TICKET = write_ticket(AUTHORITY, RUN, ALICE.peer_id, "alice")
INVITATION = Invitation(
    run_id=RUN, key="0" * 16, name="alice", role="peer", expires=time.time() + 1e6, issuer=AUTHORITY.peer_id
)
TOKEN = write_invitation(AUTHORITY, INVITATION)

raw_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def mutated(valid: bytes) -> st.SearchStrategy[bytes]:
    """The valid bytes with some of them replaced, cut off, or doubled."""

    def mutate(place: int, value: int, length: int) -> bytes:
        changed = bytearray(valid)
        changed[place % len(valid)] = value
        return bytes(changed[: len(valid) - length % len(valid)])

    return st.builds(mutate, st.integers(0, 10**6), st.integers(0, 255), st.integers(0, 10**6)) | st.just(
        2 * valid
    )


@given(st.binary(max_size=300))
def test_no_bytes_make_a_record(raw):
    for record_type in RECORD_TYPES:
        assert unpack_record(record_type, raw, ALICE.peer_id, RUN) is None


@given(raw_json, st.binary(max_size=80), st.sampled_from(RECORD_TYPES))
@example(["\ud800"], b"", RECORD_TYPES[0])
def test_no_value_of_the_dht_disturbs_the_validator(value, subkey, record_type):
    try:
        packed = MSGPackSerializer.dumps(value)
    except (OverflowError, UnicodeEncodeError):
        packed = b"\xc1"
    record = DHTRecord(
        DHTID.generate(source=dht_key(RUN, record_type)).to_bytes(), subkey, packed, time.time() + 5
    )
    assert RunRecordValidator(Admission(RUN, [AUTHORITY.peer_id])).validate(record) is False


@given(st.binary(max_size=200) | mutated(TICKET.model_dump_json().encode()))
def test_only_the_signed_ticket_admits(raw):
    ticket = parse_ticket(raw)
    admission = Admission(RUN, [AUTHORITY.peer_id], by_invitation=True)
    if ticket is not None and admission.admits(ALICE.peer_id, ticket):
        # a change that does not change what was signed, e.g. of white space
        assert ticket.model_copy(update={"warrant": ""}) == TICKET


@given(st.text(max_size=200) | mutated(TOKEN.encode()).map(lambda raw: raw.decode(errors="replace")))
def test_only_the_signed_invitation_is_read(token):
    try:
        read = read_invitation(token, RUN, [AUTHORITY.peer_id])
    except ArtelError as error:
        refusal = str(error)
    else:
        assert read == INVITATION
        return
    # a secret, or most of one, is long; a few letters are in every sentence
    assert len(token.strip()) < SECRET_CHARACTERS or token.strip() not in refusal


@pytest.mark.parametrize(
    "decode",
    [
        parse_manifest,
        FileRequest.model_validate_json,
        Refusal.model_validate_json,
        AdmissionRequest.model_validate_json,
        AdmissionAnswer.model_validate_json,
    ],
)
@given(raw=st.binary(max_size=200))
@example(raw=b"[" * 100_000)
@example(raw=b'{"payload": "\\ud800", "signature": ""}')
def test_messages_are_decoded_or_refused(decode: Callable[[bytes], Any], raw):
    with contextlib.suppress(ArtelError, ValueError):  # pydantic's errors are of the second kind
        decode(raw)


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@given(data=st.data())
def test_tensors_arrive_whole_or_not_at_all(dtype, data):
    own = torch.arange(6, dtype=dtype).reshape(2, 3)
    messages = pack_messages([own], NoCompression())
    collector = TensorCollector([Layout.of(own)])
    try:
        for message in messages:
            collector.add_message(data.draw(mutated(message)))
        (arrived,) = collector.finish()
    except UnfitTensors:
        return
    assert (arrived.shape, arrived.dtype) == (own.shape, own.dtype)
    assert torch.isfinite(arrived).all()


@given(st.lists(st.text(max_size=70), max_size=4))
def test_evictions_name_peer_ids_only(peers):
    now = time.time()
    raw = {"run_id": RUN, "issued": now, "expires": now + 5, "peers": peers}
    try:
        record = EvictionsRecord.model_validate(raw)
    except ValueError:
        return
    assert all(peer.isascii() for peer in record.peers)


def test_an_oversized_request_for_admission_is_not_even_parsed(tmp_path):
    from coordinator.admission_desk import AdmissionDesk

    class Board:
        run_id, identity = RUN, AUTHORITY
        admission = Admission(RUN, [AUTHORITY.peer_id], by_invitation=True)

    class Context:
        remote_id = ALICE.peer_id

    desk = AdmissionDesk(Board(), tmp_path / "books.json", lambda _event: None, "", by_invitation=True)
    answer = asyncio.run(desk._receive(b"x" * 2**20, Context()))
    assert "too large" in AdmissionAnswer.model_validate_json(answer).refused
