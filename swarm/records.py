"""What participants publish in the DHT: leases, peer records, the head and the settings, each signed by its owner.

A record is `signature (64 bytes) + JSON payload`; the payload names its run, kind and end of life, so that it can
neither be moved to another run or key nor outlive what its owner signed. The subkey is the owner's peer id, which
contains the public key. Anything malformed, foreign or expired is refused by every node that is asked to store or
return it, and costs the sender's record, never the reader. In a run by invitation leases and peer records carry their
owner's ticket.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from hivemind.dht import DHTID
from hivemind.dht.validation import DHTRecord, RecordValidatorBase
from hivemind.utils.serializer import MSGPackSerializer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarm.admission import Admission
from swarm.identity import SIGNATURE_BYTES, Identity, verify
from swarm.settings import MAX_ENTRIES, SettingsEntry, Step
from swarm.states import PeerState
from swarm.ticket import PeerIdText, Ticket, Warrant
from swarm.warrant import is_warranted

MAX_ADDRESSES = 4
# with readings of so many, a record is still well below its limit
MAX_DEVICES = 16
MAX_LIFETIME_SECONDS = 24 * 3600.0
# a record from further in the future would never end
MAX_CLOCK_DIFFERENCE_SECONDS = 60.0
MAX_EVICTED = 1000
# what hivemind itself keeps in the DHT, to find groups, is a few bytes that end within minutes
MAX_FOREIGN_BYTES = 256
MAX_FOREIGN_SECONDS = 900.0
# clocks of participants may differ by this much before a record looks expired or immortal
CLOCK_TOLERANCE_SECONDS = 3.0

# of a few thousand peers, at a kilobyte each
REMEMBERED_RECORDS = 8192

# Bounds on what a peer says of itself: far beyond what any can do, yet whatever is computed from the records of
# thousands of peers stays finite, and within 64 bits.
# A node of 16 GPUs makes some ten thousand samples a second; it counts for decades until it is there.
MAX_SPEED = 1e6
MAX_COUNT = 2**44 - 1
# a round a second for a century
MAX_ROUNDS = 2**32 - 1
MAX_GROUP = 2**14
# of logits in fp16 it is below 1.4e5, however wrong the model
MAX_LOSS = 1e6
# seconds of a round, watts, epochs
MAX_MEASURE = 1e9

Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
Rounds = Annotated[int, Field(ge=0, le=MAX_ROUNDS)]
Speed = Annotated[float, Field(ge=0, le=MAX_SPEED, allow_inf_nan=False)]
Loss = Annotated[float, Field(ge=-MAX_LOSS, le=MAX_LOSS, allow_inf_nan=False)]
Measure = Annotated[float, Field(ge=0, le=MAX_MEASURE, allow_inf_nan=False)]
ShortText = Annotated[str, Field(max_length=200)]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
LISTEN_ADDRESS = r"^/(ip4|ip6|dns|dns4|dns6)/[^/\s]{1,64}/(tcp|udp)/\d{1,5}(/[a-z0-9-]{1,16}){0,2}$"
ListenAddress = Annotated[str, Field(pattern=LISTEN_ADDRESS)]
Branch = Annotated[str, Field(pattern=r"^[0-9a-f]{0,16}$")]


class _Record(BaseModel):
    # unknown fields are ignored so that versions can mix; everything known is strict
    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    KIND: ClassVar[str]
    MAX_BYTES: ClassVar[int] = 4096

    run_id: ShortText
    issued: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    expires: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Lease(_Record):
    """A sign of life: which step this peer is at, and how many samples it has accumulated for it.

    :param branch: of its training state, see `Snapshot`
    :param addresses: where it listens; empty in client mode
    :param text_position: how far it has come in the text, in epochs
    :param departing: it is about to go: still counts in this step, but nothing may be entrusted to it
    :param ticket: in a run by invitation
    """

    KIND = "leases"
    kind: Literal["leases"] = "leases"

    state: Annotated[PeerState, Field(strict=False)]
    step: Step
    samples: Count
    samples_computed: Count = 0
    samples_per_second: Speed = 0.0
    client_mode: bool = False
    branch: Branch = ""
    departing: bool = False
    addresses: Annotated[tuple[ListenAddress, ...], Field(max_length=MAX_ADDRESSES)] = ()
    text_position: Measure = 0.0
    ticket: Ticket | None = None


class DeviceReading(BaseModel):
    """What a device does right now.

    :param utilization: part of the last moments in which it computed, 0 to 1; `memory`: part of its memory in use
    :param power: in watts; `temperature`: in degrees Celsius; None for what the driver does not tell
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    utilization: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    memory: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    power: Measure | None = None
    temperature: Annotated[float, Field(ge=-100, le=1000, allow_inf_nan=False)] | None = None


class PeerRecord(_Record):
    """What a peer is and has done; renewed rarely."""

    KIND = "peers"
    kind: Literal["peers"] = "peers"

    name: ShortText
    version: ShortText
    state: Annotated[PeerState, Field(strict=False)]
    device: ShortText
    ranks: Annotated[int, Field(ge=1, le=4096)] = 1
    client_mode: bool = False
    global_step: Step
    samples_per_second: Speed = 0.0
    samples_contributed: Count = 0
    samples_computed: Count = 0
    loss: Loss | None = None
    # of the last global step: members of the group, share of the average that arrived, seconds it took
    round_group: Annotated[int, Field(ge=0, le=MAX_GROUP)] = 0
    round_received: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    round_seconds: Measure = 0.0
    rounds_partial: Rounds = 0
    rounds_failed: Rounds = 0
    # samples computed here that another peer took over, and the other way round
    samples_handed_over: Count = 0
    samples_taken_over: Count = 0
    # how often the state had to be fetched again, by reason
    reloads: Annotated[dict[ShortText, Rounds], Field(max_length=8)] = {}
    last_error: ShortText = ""
    # rounds in which others sent or returned what cannot be a gradient, by peer id
    offences: Annotated[dict[PeerIdText, Rounds], Field(max_length=8)] = {}
    ticket: Ticket | None = None
    # one per accelerator; nothing of CPUs
    devices: Annotated[tuple[DeviceReading, ...], Field(max_length=MAX_DEVICES)] = ()


class HeadRecord(_Record):
    """Signed by a coordinator: the last good state. No peer trains below `step`.

    `warrant`: of the run's authority, if the coordinator is not the authority itself.

    `reached` is when that state was taken from the swarm, in seconds since the epoch; renewing the record keeps it.
    """

    KIND = "head"
    kind: Literal["head"] = "head"

    step: Step
    branch: Branch = ""
    reached: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    state_digest: Hex
    # mean loss over the first held-out rows, by which others recognise a later state; unknown at first
    probe_loss: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    finished: bool = False
    warrant: Warrant = ""


class SettingsRecord(_Record):
    """Signed by a coordinator: the settings of the run by global step, see `swarm.settings`.

    :param version: grows with every change; `issuer`: the coordinator that made it
    """

    KIND = "settings"
    kind: Literal["settings"] = "settings"

    version: Annotated[int, Field(ge=1, lt=2**53)]
    issuer: ShortText
    entries: Annotated[tuple[SettingsEntry, ...], Field(min_length=1, max_length=MAX_ENTRIES, strict=False)]
    warrant: Warrant = ""


class EvictionsRecord(_Record):
    """Signed by a coordinator: peers whose admission it has ended. Whatever they say from then on is not heard."""

    KIND = "evictions"
    MAX_BYTES = 80_000
    kind: Literal["evictions"] = "evictions"

    peers: Annotated[tuple[PeerIdText, ...], Field(max_length=MAX_EVICTED, strict=False)] = ()
    warrant: Warrant = ""


RecordType = TypeVar("RecordType", bound=_Record)
RECORD_TYPES: tuple[type[_Record], ...] = (Lease, PeerRecord, HeadRecord, SettingsRecord, EvictionsRecord)


def dht_key(run_id: str, record_type: type[_Record]) -> str:
    """The DHT key under which records of this type of this run live, one subkey per owner."""
    return f"{run_id}_{record_type.KIND}"


def pack_record(record: _Record, identity: Identity) -> bytes:
    """Sign a record: 64 bytes of signature, then its JSON."""
    payload = record.model_dump_json().encode()
    return identity.sign(payload) + payload


def unpack_record(record_type: type[RecordType], raw: Any, owner: str, run_id: str) -> RecordType | None:
    """The record in `raw`, or None if it is malformed, of another run or kind, or not signed by `owner`."""
    if not isinstance(raw, bytes) or not SIGNATURE_BYTES < len(raw) <= record_type.MAX_BYTES:
        return None
    signature, payload = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
    try:
        record = record_type.model_validate_json(payload)
    except ValidationError:
        return None
    if record.run_id != run_id or not 0 < record.expires - record.issued <= MAX_LIFETIME_SECONDS:
        return None
    if record.issued > time.time() + MAX_CLOCK_DIFFERENCE_SECONDS:
        return None
    return record if verify(owner, payload, signature) else None


class RunRecordValidator(RecordValidatorBase):
    """Refuses records of one run that their owner did not sign, or may not write; runs inside every DHT node of it.

    :param admission: who may write records; learns here whom the coordinators have evicted. Its authorities may publish
        head, settings and eviction records, or warrant that another one may
    """

    def __init__(self, admission: Admission):
        self.admission = admission
        # every node that is asked sends all records again: each is checked once, not at every reading
        self._accepted: dict[tuple[bytes, bytes, bytes], tuple[float, str]] = {}
        run_id = admission.run_id
        self._types = {DHTID.generate(source=dht_key(run_id, kind)).to_bytes(): kind for kind in RECORD_TYPES}

    def validate(self, record: DHTRecord) -> bool:
        """Called by hivemind before a record is stored for others and after it is received from others."""
        record_type = self._types.get(record.key)
        if record_type is None:
            return self._may_be_hiveminds(record)
        place = (record.key, record.subkey, record.value)
        accepted = self._accepted.get(place) or self._check(record_type, record)
        if accepted is None:
            return False
        self._remember(place, accepted)
        expires, owner = accepted
        if owner in self.admission.evicted:
            return False
        return record.expiration_time <= expires + CLOCK_TOLERANCE_SECONDS

    @staticmethod
    def _may_be_hiveminds(record: DHTRecord) -> bool:
        soon = record.expiration_time <= time.time() + MAX_FOREIGN_SECONDS
        return soon and len(record.subkey) + len(record.value) <= MAX_FOREIGN_BYTES

    def _check(self, record_type: type[_Record], record: DHTRecord) -> tuple[float, str] | None:
        """(the end of life that its owner signed, its owner); None if the record must not be believed."""
        owner, raw = _loads(record.subkey), _loads(record.value)
        if not isinstance(owner, str):
            return None
        content = unpack_record(record_type, raw, owner, self.admission.run_id)
        if content is None or not self._may_write(owner, content):
            return None
        if isinstance(content, EvictionsRecord):
            self.admission.take_evictions(owner, content.issued, content.peers)
        return content.expires, owner

    def _may_write(self, owner: str, content: _Record) -> bool:
        if isinstance(content, HeadRecord | SettingsRecord | EvictionsRecord):
            return self._is_coordinator(owner, content.warrant)
        return self.admission.admits(owner, getattr(content, "ticket", None))

    def _remember(self, place: tuple[bytes, bytes, bytes], accepted: tuple[float, str]) -> None:
        while len(self._accepted) >= REMEMBERED_RECORDS and place not in self._accepted:
            del self._accepted[next(iter(self._accepted))]
        self._accepted[place] = accepted

    def _is_coordinator(self, owner: str, warrant: str) -> bool:
        authorities = self.admission.authorities
        return owner in authorities or is_warranted(warrant, self.admission.run_id, owner, authorities)


def _loads(raw: bytes) -> Any:
    """Decode one msgpack value from the network; None for anything that is not one."""
    try:
        return MSGPackSerializer.loads(raw)
    except Exception:  # msgpack raises whatever a malformed message makes its parser raise
        return None
