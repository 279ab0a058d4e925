"""Opens the DHT, and reads and writes the run's records in it, always with a deadline.

The DHT runs in a forked child with libp2p's daemon below it; both die with the process that opened them. Must be
opened by the main thread, before other threads and before CUDA.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any, TypeVar

import hivemind
import hivemind.dht.node
from hivemind.dht.node import DHTNode
from hivemind.dht.storage import DictionaryDHTValue
from hivemind.utils.timed_storage import ValueWithExpiration

from swarm.admission import Admission
from swarm.dht_door import protocol_behind
from swarm.errors import OperationFailed
from swarm.identity import Identity
from swarm.introductions import Acquaintances, AddressBook, introduce
from swarm.lifeline import daemons_tied_to_us, die_with_parent, ignore_polite_signals
from swarm.records import (
    Lease,
    RecordType,
    RunRecordValidator,
    _Record,
    dht_key,
    pack_record,
    unpack_record,
)
from swarm.sockets import name_our_sockets
from swarm.ticket import Ticket
from swarm.whole_messages import WholeMessages

logger = logging.getLogger(__name__)

STARTUP_TIMEOUT_SECONDS = 60.0
CALL_TIMEOUT_SECONDS = 10.0
LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)

Records = dict[str, RecordType]
Result = TypeVar("Result")


class TiedDHT(hivemind.DHT):
    """`hivemind.DHT` whose child process and libp2p daemon are killed as soon as their parents are gone.

    :param admission: of the run; where it is by invitation, only those with tickets may ask this node for anything
    """

    def __init__(self, *args: Any, admission: Admission, **kwargs: Any):
        self.admission = admission
        super().__init__(*args, **kwargs)

    _inner_pipe: Any

    def run(self) -> None:
        die_with_parent(self._parent_pid)
        ignore_polite_signals()
        store_only_what_is_newer()
        self._inner_pipe = WholeMessages(self._inner_pipe)
        if self.admission.by_invitation:
            # in this process only, which has one node
            hivemind.dht.node.DHTProtocol = protocol_behind(self.admission)  # type: ignore[misc]
        with daemons_tied_to_us():
            super().run()

    def renew_ticket(self, ticket: Ticket) -> None:
        """Show another ticket from now on, here and in the DHT process."""
        self.admission.own_ticket = ticket
        self.run_coroutine(functools.partial(_show_ticket, ticket), return_future=True)

    def terminate(self) -> None:
        """What hivemind does with a child that does not end when asked; it ignores the polite signal."""
        self.kill()


def store_only_what_is_newer() -> None:
    """Call in the DHT's process: its storage takes no notice of records that it holds already.

    hivemind 1.1.12 puts every attempt to store on a heap until it expires. Reading merges the answers of all replicas
    into the storage, so that grows by all records with every reading; and an older copy of a record, once it expires,
    takes the newer one with it.
    """
    store = DictionaryDHTValue.store

    def store_if_newer(self: DictionaryDHTValue, key: Any, value: bytes, expiration_time: float) -> bool:
        held = self.data.get(key)
        if held is not None and held.expiration_time >= expiration_time:
            return False
        return store(self, key, value, expiration_time)

    DictionaryDHTValue.store = store_if_newer


def open_dht(
    *,
    identity_path: Path,
    initial_peers: Sequence[str] = (),
    host_maddrs: Sequence[str] = LOOPBACK,
    announce_maddrs: Sequence[str] = (),
    client_mode: bool = False,
    admission: Admission,
) -> TiedDHT:
    """Start a DHT node; raises `OperationFailed` with the daemon's own words when it does not start.

    :param admission: of the run whose records it checks and stores
    """
    name_our_sockets()
    try:
        return TiedDHT(
            start=True,
            initial_peers=list(initial_peers) or None,
            identity_path=str(identity_path),
            check_if_identity_free=False,  # understands RSA only; a second use is seen by its lease
            host_maddrs=list(host_maddrs),
            announce_maddrs=list(announce_maddrs) or None,
            client_mode=client_mode,
            startup_timeout=STARTUP_TIMEOUT_SECONDS,
            record_validators=[RunRecordValidator(admission)],
            admission=admission,
            # every reader would send all that it has read on to one more node
            cache_nearest=0,
        )
    except Exception as error:  # whatever the child process raised arrives here
        raise OperationFailed(f"the DHT did not start: {explain_daemon_error(error)}") from error


async def _show_ticket(ticket: Ticket, dht: TiedDHT, _node: DHTNode) -> None:
    """Runs in the DHT process."""
    dht.admission.own_ticket = ticket


def explain_daemon_error(error: BaseException) -> str:
    """One line out of what libp2p's daemon or hivemind said, with the likely remedy."""
    words = " ".join(str(error).split()) or type(error).__name__
    if "bootstrap" in words:
        return (
            "none of the given addresses answered as the peer its address names; "
            "ask for the coordinator's current `peer join` line"
        )
    return words[:300]


class RecordBoard:
    """Typed, signed records of one run on top of the DHT; every call ends within a deadline.

    A lost or slow DHT shows as `None` or an empty dictionary, never as a hang: the caller tries again next time.
    """

    def __init__(self, dht: TiedDHT, run_id: str, identity: Identity, contacts: Sequence[str] = ()):
        self.dht, self.run_id, self.identity = dht, run_id, identity
        self.admission = dht.admission
        self.contacts = tuple(contact for contact in contacts if contact != identity.peer_id)
        self._acquaintances = Acquaintances(identity.peer_id)
        # the pipe to the DHT process is not safe for several writers
        self._pipe_lock = threading.Lock()
        # raw and checked form by type and owner: most records are read many times before they are renewed
        self._checked_before: dict[tuple[type[_Record], str], tuple[bytes, _Record]] = {}

    def publish(self, record: _Record, timeout: float = CALL_TIMEOUT_SECONDS) -> bool:
        """Sign and store a record under our own peer id; False when no node took it in time."""
        with self._pipe_lock:
            future = self.dht.store(
                key=dht_key(self.run_id, type(record)),
                subkey=self.identity.peer_id,
                value=pack_record(record, self.identity),
                expiration_time=record.expires,
                return_future=True,
            )
        return bool(self._wait(future, timeout))

    def read(self, record_type: type[RecordType], timeout: float = CALL_TIMEOUT_SECONDS) -> Records | None:
        """All live records of a type by owner, signatures checked; None when the DHT did not answer.

        Reading leases also connects us to peers that we had not heard of, without waiting.
        """
        return self.ask(record_type, timeout)()

    def ask(
        self, record_type: type[RecordType], timeout: float = CALL_TIMEOUT_SECONDS
    ) -> Callable[[], Records | None]:
        """Begin to read; the answer comes from calling what is returned. For reading several types at once."""
        deadline = time.monotonic() + timeout
        with self._pipe_lock:
            future = self.dht.get(dht_key(self.run_id, record_type), latest=True, return_future=True)

        def answer() -> Records | None:
            found = self._wait(future, max(0.0, deadline - time.monotonic()), default=_UNANSWERED)
            return self._records_in(found, record_type)

        return answer

    def _records_in(self, answer: Any, record_type: type[RecordType]) -> Records | None:
        if answer is _UNANSWERED:
            return None
        if answer is None or not isinstance(answer.value, dict):
            return {}
        records: Records = dict(self._checked(record_type, answer.value))
        if record_type is Lease:
            self._introduce(self._acquaintances.hear_of(records))  # type: ignore[arg-type]
        return records

    def renew_contacts(self) -> None:
        """Connect to whom we have lost the connection, ping the peers of first contact and some lost ones.

        Without waiting. After a restart of the coordinator, or a cut of the network, the two halves would else stay
        apart for ever.
        """
        self._introduce(self._acquaintances.book(), [*self.contacts, *self._acquaintances.lost()])

    def _introduce(self, book: AddressBook, ping: Sequence[str] = ()) -> None:
        with self._pipe_lock:
            introduce(self.dht, book, ping)

    def _checked(self, record_type: type[RecordType], entries: dict[Any, Any]) -> Iterator[tuple[str, Any]]:
        known = self._checked_before
        fresh: dict[tuple[type[_Record], str], tuple[bytes, _Record]] = {}
        for owner, entry in entries.items():
            if not isinstance(owner, str) or not isinstance(entry, ValueWithExpiration):
                continue
            raw, record = known.get((record_type, owner), (b"", None))
            if record is None or raw != entry.value:
                record = unpack_record(record_type, entry.value, owner, self.run_id)
            if record is not None:
                fresh[record_type, owner] = (entry.value, record)
                yield owner, record
        others = {key: value for key, value in known.items() if key[0] is not record_type}
        self._checked_before = {**others, **fresh}

    @staticmethod
    def _wait(future: Any, timeout: float, default: Any = None) -> Any:
        try:
            return future.result(timeout)
        except FutureTimeoutError:
            future.cancel()
            logger.warning("the DHT did not answer in time")
        except Exception as error:  # raised in the DHT process by whatever a foreign record made it do
            logger.warning("the DHT failed: %r", error)
        return default


_UNANSWERED = object()
