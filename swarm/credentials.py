"""How a participant gets its ticket, shows it before it knows the run, keeps it, and has it renewed.

The first contact is asked under the participant's own identity, so that the ticket it gives is bound to it. A ticket is
kept (mode 0600) beside the identities, and the next start needs no invitation.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PDaemonError, P2PHandlerError, PeerID
from hivemind.p2p.p2p_daemon_bindings.utils import ControlFailure
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarm.admission import parse_ticket
from swarm.errors import BadInput, OperationFailed
from swarm.service import ServiceThread
from swarm.ticket import MAX_TOKEN_CHARACTERS, Ticket, issuer_of
from swarm.whole_file import write_whole

logger = logging.getLogger(__name__)

HANDLER = "artel.admission"
MAX_REQUEST_BYTES = 8192
CALL_TIMEOUT_SECONDS = 10.0
# how often a peer that hears no coordinator asks whether it was evicted
ASK_AGAIN_SECONDS = 60.0


class AdmissionRequest(BaseModel):
    """What a peer asks a coordinator: a ticket for an invitation, or a new one for one that ends."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    invitation: str = Field(default="", max_length=MAX_TOKEN_CHARACTERS)
    ticket: Ticket | None = None


class AdmissionAnswer(BaseModel):
    """A ticket, or why there is none.

    :param warrant: of the authority, for whoever was invited as a coordinator
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    ticket: Ticket | None = None
    warrant: str = ""
    refused: str = ""


@dataclass
class Credentials:
    """Who we are to a run that may be by invitation.

    :param identity_path: key whose peer id the ticket is for
    :param kept: file of the ticket
    :param token: the invitation, if one was given
    """

    identity_path: Path
    kept: Path
    token: str | None = None
    ticket: Ticket | None = None
    warrant: str = ""

    def load(self) -> None:
        """Take the kept ticket, unless it has ended."""
        with contextlib.suppress(OSError):
            ticket = parse_ticket(self.kept.read_bytes())
            self.ticket = ticket if ticket is not None and ticket.has_not_ended() else None

    def keep(self, ticket: Ticket) -> None:
        """Use this ticket from now on, and after a restart."""
        self.ticket = ticket
        self.kept.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.kept, ticket.model_dump_json().encode(), mode=0o600)

    def show(self) -> bytes:
        """The ticket as JSON; nothing if we have none."""
        return b"" if self.ticket is None else self.ticket.model_dump_json().encode()

    async def redeem(self, p2p: P2P) -> None:
        """Turn the invitation into a ticket, which only the coordinator that made it can.

        :raises BadInput: it refuses, in its words
        :raises OperationFailed: it cannot be reached
        """
        token = self.token or ""
        coordinator, run_id = issuer_of(token)
        try:
            answer = await ask(p2p, coordinator, AdmissionRequest(invitation=token))
        except ConnectionError:
            raise OperationFailed(
                f"coordinator {coordinator} of run {run_id}, which made the invitation, cannot be reached: try again "
                "when it is up, with the line that came with the invitation, or ask for a new one"
            ) from None
        if answer.ticket is None:
            raise BadInput(answer.refused or "the coordinator gave no ticket: ask the operator of the run")
        self.warrant = answer.warrant
        self.keep(answer.ticket)


async def ask(p2p: P2P, coordinator: str, request: AdmissionRequest) -> AdmissionAnswer:
    """Ask a coordinator about admission; an answer that is none counts as a refusal.

    :raises ConnectionError: it could not be asked
    """
    call = p2p.call_protobuf_handler(
        PeerID.from_base58(coordinator),
        HANDLER,
        BytesValue(value=request.model_dump_json().encode()),
        BytesValue,
    )
    try:
        answer = await asyncio.wait_for(call, CALL_TIMEOUT_SECONDS)
        return AdmissionAnswer.model_validate_json(answer.value)
    except ValidationError:
        return AdmissionAnswer(refused="its answer cannot be read: is it of another version of Artel?")
    except (
        P2PHandlerError,
        P2PDaemonError,
        ControlFailure,
        asyncio.TimeoutError,
        OSError,
        EOFError,
    ) as error:
        raise ConnectionError(str(error) or type(error).__name__) from None


class TicketRenewal:
    """Has our ticket renewed in time by any coordinator; called by the presence thread."""

    def __init__(self, credentials: Credentials, service: ServiceThread):
        self.credentials, self.service = credentials, service
        self.refusal = ""
        self._next = 0.0

    def attend(self, coordinators: Sequence[str], *, coordinators_are_silent: bool) -> Ticket | None:
        """Ask for a new ticket if it is time, or whether ours still holds; the new one, if there is one.

        A refusal stands in `refusal` from then on.
        """
        ticket = self.credentials.ticket
        if ticket is None or time.monotonic() < self._next:
            return None
        if not ticket.is_half_over and not coordinators_are_silent:
            return None
        self._next = time.monotonic() + ASK_AGAIN_SECONDS
        for coordinator in coordinators:
            with contextlib.suppress(ConnectionError, TimeoutError, asyncio.TimeoutError):
                request = AdmissionRequest(ticket=ticket)
                answer = self.service.run(
                    ask(self.service.p2p, coordinator, request), CALL_TIMEOUT_SECONDS + 1
                )
                return self._take(answer)
        return None

    def _take(self, answer: AdmissionAnswer) -> Ticket | None:
        if answer.ticket is None:
            self.refusal = answer.refused
            return None
        try:
            self.credentials.keep(answer.ticket)
        except OSError as error:  # a full disk: it holds all the same, until the next start
            logger.warning("the ticket could not be kept: %s", error)
        return answer.ticket
