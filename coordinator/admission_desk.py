"""Who is invited, admitted and evicted: one desk per coordinator, with its books in the run directory.

RUN_DIR/admission.json (mode 0600) names which peer ids came with which invitation, and who was evicted and why; it
holds no secret. An invitation admits as many peer ids as it was made for: the same one may come again, another one
may not. Evictions are published in a signed record until their tickets have ended by themselves.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.events import Announce, Event
from coordinator.settings_desk import NotNow
from coordinator.status import PeerStatus
from swarm.credentials import HANDLER, MAX_REQUEST_BYTES, AdmissionAnswer, AdmissionRequest
from swarm.dht import RecordBoard
from swarm.errors import ArtelError, BadInput, OperationFailed
from swarm.records import MAX_EVICTED, EvictionsRecord, PeerRecord
from swarm.service import P2PContext, ServiceThread, add_unary_handler
from swarm.ticket import (
    TICKET_SECONDS,
    Invitation,
    Role,
    Ticket,
    read_invitation,
    write_invitation,
    write_ticket,
)
from swarm.warrant import write_warrant
from swarm.whole_file import write_whole

logger = logging.getLogger(__name__)

RECORD_LIFETIME_SECONDS = 3600.0
# rounds in which a peer did what cannot be, as told by each of several others, before it is evicted
OFFENCES_BEFORE_EVICTION = 3
MIN_ACCUSERS = 2


class Eviction(BaseModel):
    """One peer whose admission was ended."""

    model_config = ConfigDict(frozen=True)

    name: str
    reason: str
    time: float


class Books(BaseModel):
    """What the desk must remember: peer ids by invitation, invitations by peer id, and evictions."""

    model_config = ConfigDict(frozen=True)

    admitted: dict[str, tuple[str, ...]] = {}
    evicted: dict[str, Eviction] = {}
    withdrawn: tuple[str, ...] = ()


class AdmissionDesk:
    """Invites, admits, renews and evicts; for any thread.

    :param board: writes the eviction record, and knows whom to believe
    :param warrant: of the run's authority, if this coordinator is not the authority itself
    :param by_invitation: whether the run needs tickets at all
    """

    def __init__(
        self, board: RecordBoard, path: Path, announce: Announce, warrant: str, *, by_invitation: bool
    ):
        self.board, self.path, self.announce, self.warrant = board, path, announce, warrant
        self.by_invitation = by_invitation
        self._lock = threading.Lock()
        self._books = Books()

    def load(self) -> None:
        """Take up the books of an earlier start; raises `OperationFailed` if they cannot be read."""
        try:
            self._books = Books.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValidationError) as error:
            raise OperationFailed(
                f"{self.path} cannot be read ({error}): restore it, or delete it, which readmits whom it evicted"
            ) from None

    def open(self, service: ServiceThread) -> None:
        """Begin to answer those who want in."""
        service.run(add_unary_handler(service.p2p, HANDLER, self._receive), timeout=10)

    def invite(self, name: str, role: Role, seconds: float, machines: int) -> str:
        """The token of a new invitation; raises `NotNow` where everybody may come in anyway."""
        if not self.by_invitation:
            raise NotNow('this run is open to everybody: `admission = "invite"` in its spec closes it')
        invitation = Invitation(
            run_id=self.board.run_id,
            key=secrets.token_hex(8),
            name=name,
            role=role,
            expires=time.time() + seconds,
            machines=machines,
            issuer=self.board.identity.peer_id,
            warrant=self.warrant,
        )
        self.announce(Event("invited", f"{name} was invited as a {role}", data={"name": name, "role": role}))
        return write_invitation(self.board.identity, invitation)

    def evict(self, peer: PeerStatus, reason: str) -> None:
        """End a peer's admission, and the invitation that it came with.

        :raises BadInput: it is the run's own coordinator
        :raises NotNow: so many are evicted that another one cannot be published
        """
        if peer.peer_id in self.board.admission.authorities:
            raise BadInput(
                f"{peer.name or peer.peer_id} is the run's first coordinator, which cannot be evicted"
            )
        eviction = Eviction(name=peer.name, reason=reason, time=time.time())
        with self._lock:
            books = self._books
            if len(books.evicted) >= MAX_EVICTED and peer.peer_id not in books.evicted:
                raise NotNow(f"{MAX_EVICTED} peers are evicted already: this run should be by invitation")
            keys = [key for key, peers in books.admitted.items() if peer.peer_id in peers]
            self._write(
                books.model_copy(
                    update={
                        "evicted": {**books.evicted, peer.peer_id: eviction},
                        "withdrawn": tuple({*books.withdrawn, *keys}),
                    }
                )
            )
        self.renew()
        sentence = f"{peer.name or peer.peer_id} was evicted: {reason}"
        self.announce(Event("evicted", sentence, peer.peer_id, {"name": peer.name, "reason": reason}))

    def renew(self) -> None:
        """Publish whom we have evicted, and hear it ourselves."""
        now, evicted = time.time(), self._recently_evicted()
        if not evicted:
            return
        self.board.admission.take_evictions(self.board.identity.peer_id, now, evicted)
        self.board.publish(
            EvictionsRecord(
                run_id=self.board.run_id,
                issued=now,
                expires=now + RECORD_LIFETIME_SECONDS,
                peers=evicted,
                warrant=self.warrant,
            )
        )

    def judge(self, records: Mapping[str, PeerRecord], peers: Sequence[PeerStatus]) -> None:
        """Evict who has spoilt rounds for most others, again and again.

        One accuser is not enough, and neither are few of many: an accusation can be a lie.
        """
        working = {peer: record for peer, record in records.items() if record.state.contributes}
        by_id = {peer.peer_id: peer for peer in peers}
        for accused in sorted({peer for record in working.values() for peer in record.offences}):
            others = [record for peer, record in working.items() if peer != accused]
            accusers = sum(record.offences.get(accused, 0) >= OFFENCES_BEFORE_EVICTION for record in others)
            known = accused in by_id and accused not in self._books.evicted
            if known and accusers >= MIN_ACCUSERS and 2 * accusers > len(others):
                reason = f"{accusers} of {len(others)} peers received from it what cannot be averaged"
                self._evict_offender(by_id[accused], reason)

    def _evict_offender(self, peer: PeerStatus, reason: str) -> None:
        try:
            self.evict(peer, reason)
        except ArtelError as error:
            logger.warning("%s was not evicted: %s", peer.peer_id, error)

    async def _receive(self, raw: bytes, context: P2PContext) -> bytes:
        try:
            if len(raw) > MAX_REQUEST_BYTES:
                raise BadInput("the request is too large")
            answer = self._answer(AdmissionRequest.model_validate_json(raw), str(context.remote_id))
        except (ValidationError, UnicodeDecodeError):
            answer = AdmissionAnswer(refused="the request cannot be read: is it of another version of Artel?")
        except ArtelError as error:
            answer = AdmissionAnswer(refused=str(error))
        return answer.model_dump_json().encode()

    def _answer(self, request: AdmissionRequest, peer_id: str) -> AdmissionAnswer:
        if (eviction := self._books.evicted.get(peer_id)) is not None:
            raise BadInput(f"this peer was evicted from the run ({eviction.reason})")
        if request.invitation:
            return self._redeem(request.invitation, peer_id)
        old = request.ticket
        if old is None or not self.board.admission.admits(peer_id, old) or not self.by_invitation:
            raise BadInput("the ticket shown does not hold: ask for an invitation")
        return AdmissionAnswer(ticket=self._ticket(peer_id, old.name, old.role))

    def _redeem(self, token: str, peer_id: str) -> AdmissionAnswer:
        invitation = read_invitation(token, self.board.run_id, self.board.admission.authorities)
        with self._lock:
            books = self._books
            came = books.admitted.get(invitation.key, ())
            if invitation.key in books.withdrawn:
                raise BadInput("the invitation was withdrawn: ask for a new one")
            if peer_id not in came:
                if len(came) >= invitation.machines:
                    raise BadInput(
                        f"the invitation has been used by {len(came)} other machines: ask for another one"
                        if len(came) > 1
                        else "the invitation has been used by another machine: ask for another one"
                    )
                admitted = {**books.admitted, invitation.key: (*came, peer_id)}
                self._write(books.model_copy(update={"admitted": admitted}))
                sentence = f"{invitation.name} was admitted as {peer_id}"
                self.announce(Event("admitted", sentence, peer_id, {"name": invitation.name}))
        warrant = ""
        if invitation.role == "coordinator" and not self.warrant:
            warrant = write_warrant(self.board.identity, self.board.run_id, peer_id)
        return AdmissionAnswer(
            ticket=self._ticket(peer_id, invitation.name, invitation.role), warrant=warrant
        )

    def _ticket(self, peer_id: str, name: str, role: Role) -> Ticket:
        return write_ticket(self.board.identity, self.board.run_id, peer_id, name, role, self.warrant)

    def _recently_evicted(self) -> tuple[str, ...]:
        """Those whose tickets may still hold; in an open run, where there are none, all of them."""
        since = time.time() - 2 * TICKET_SECONDS if self.by_invitation else 0.0
        evicted = self._books.evicted
        return tuple(sorted(peer for peer, eviction in evicted.items() if eviction.time > since))

    def _write(self, books: Books) -> None:
        """Keep the books; raises `OperationFailed`, and then nothing has changed."""
        try:
            write_whole(self.path, books.model_dump_json(indent=1).encode(), mode=0o600)
        except OSError as error:
            raise OperationFailed(
                f"{self.path} cannot be written ({error.strerror}): nothing was changed"
            ) from None
        self._books = books
