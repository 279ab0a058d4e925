"""Who is invited, admitted and evicted: one desk per coordinator, with its books in the run directory.

An invitation admits as many peer ids as it was made for: the same one may come again, another one may not. Only the
desk that made it takes it, so that it is not used once more at each of several coordinators. Evictions are published in
a signed record until their tickets have ended by themselves, and each coordinator takes over those of the others: it
refuses whom they evicted, and goes on publishing it if their machines are lost.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pydantic import ValidationError

from coordinator.admission_books import Books, Eviction, keep_books, load_books
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

logger = logging.getLogger(__name__)

RECORD_LIFETIME_SECONDS = 3600.0
# for how long an eviction is published in a run by invitation: tickets given before everybody heard of it end by then
LISTED_SECONDS = 2 * TICKET_SECONDS
# rounds in which a peer did what cannot be, as told by each of several others, before it is evicted
OFFENCES_BEFORE_EVICTION = 3
MIN_ACCUSERS = 2


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
        self._books = load_books(self.path)

    def open(self, service: ServiceThread) -> None:
        """Begin to answer those who want in."""
        service.run(add_unary_handler(service.p2p, HANDLER, self._receive), timeout=10)

    def invite(self, name: str, role: Role, seconds: float, machines: int) -> str:
        """The token of a new invitation.

        :raises NotNow: everybody may come in anyway
        :raises BadInput: of a coordinator, whom only the run's first one can warrant
        """
        if not self.by_invitation:
            raise NotNow('this run is open to everybody: `admission = "invite"` in its spec closes it')
        if role == "coordinator" and self.warrant:
            raise BadInput("only the run's first coordinator can invite another one: run this command there")
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
            listed = {each for each, other in self._recently_evicted().items() if not other.by}
            if len(listed | {peer.peer_id}) > MAX_EVICTED:
                raise NotNow(self._list_is_full())
            self._write(self._books.with_evicted({peer.peer_id: eviction}))
        self._publish()
        sentence = f"{peer.name or peer.peer_id} was evicted: {reason}"
        self.announce(Event("evicted", sentence, peer.peer_id, {"name": peer.name, "reason": reason}))

    def renew(self) -> None:
        """Hear whom other coordinators have evicted, and publish that of us all again."""
        records, admission = self.board.read(EvictionsRecord) or {}, self.board.admission
        # the authority first: it may have evicted another one, whose word counts no more
        for coordinator in sorted(records, key=lambda peer: peer not in admission.authorities):
            if coordinator != self.board.identity.peer_id and admission.admits_coordinator(coordinator):
                self._hear(coordinator, records[coordinator])
        self._publish()

    def _hear(self, coordinator: str, record: EvictionsRecord) -> None:
        eviction = Eviction(name="", reason="by another coordinator", time=time.time(), by=coordinator)
        with self._lock:
            self.board.admission.take_evictions(coordinator, record.issued, record.peers)
            unknown = {*record.peers} - self._books.evicted.keys() - self.board.admission.authorities
            # not more of them than a record holds: whoever decided it publishes it as well
            room = MAX_EVICTED - sum(each.by != "" for each in self._recently_evicted().values())
            if taken := sorted(unknown)[:room]:
                self._keep_if_possible(self._books.with_evicted(dict.fromkeys(taken, eviction)))

    def _publish(self) -> None:
        now, recent = time.time(), self._recently_evicted()
        # our own before what others publish as well
        evicted = tuple(sorted(recent, key=lambda peer: (recent[peer].by != "", peer))[:MAX_EVICTED])
        if not evicted:
            return
        with self._lock:
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
        if peer_id in self.board.admission.evicted:
            raise BadInput("this peer was evicted from the run")
        if request.invitation:
            return self._redeem(request.invitation, peer_id)
        old = request.ticket
        if old is None or not self.board.admission.admits(peer_id, old) or not self.by_invitation:
            raise BadInput("the ticket shown does not hold: ask for an invitation")
        return AdmissionAnswer(ticket=self._ticket(peer_id, old.name, old.role))

    def _redeem(self, token: str, peer_id: str) -> AdmissionAnswer:
        invitation = read_invitation(token, self.board.run_id, self.board.admission.authorities)
        if invitation.issuer != self.board.identity.peer_id:
            raise BadInput(
                f"the invitation was made by coordinator {invitation.issuer}, which alone can count its uses: join "
                "through the line that came with it"
            )
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
                self._write(books.with_admitted(invitation.key, peer_id))
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

    def _list_is_full(self) -> str:
        if self.by_invitation:
            days = round(LISTED_SECONDS / (24 * 3600))
            return (
                f"{MAX_EVICTED} peers were evicted within {days} days: wait until the first is off the list"
            )
        return f"{MAX_EVICTED} peers are evicted already: this run should be by invitation"

    def _recently_evicted(self) -> dict[str, Eviction]:
        """Those whose tickets may still hold; in an open run, where there are none, all of them."""
        since = time.time() - LISTED_SECONDS if self.by_invitation else 0.0
        evicted = self._books.evicted
        return {peer: eviction for peer, eviction in evicted.items() if eviction.time > since}

    def _write(self, books: Books) -> None:
        """Keep the books; raises `OperationFailed`, and then nothing has changed."""
        keep_books(self.path, books)
        self._books = books

    def _keep_if_possible(self, books: Books) -> None:
        """With what another coordinator decided: it keeps it too, so a full disk here must not end the run."""
        try:
            self._write(books)
        except OperationFailed as error:
            logger.warning("%s", error)
