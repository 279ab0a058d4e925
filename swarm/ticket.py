"""Tickets and invitations: who may take part in a run that is by invitation, as which peer id, and until when.

A ticket is signed by the run's authority, or by a coordinator that the authority has warranted, over the run, one peer
id, its name, its role and its end. The peer id is the libp2p identity, so a ticket is worth nothing to anybody else: it
is shown openly, in records and in calls. An invitation is a token that turns into a ticket for whoever shows it first
to the coordinator that made it, which alone knows how often it was used; it is a secret, travels to that coordinator
only, and is never logged.
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarm.errors import BadInput
from swarm.identity import SIGNATURE_BYTES, Identity, verify
from swarm.warrant import is_warranted

TOKEN_PREFIX = "artel-"
MAX_TOKEN_CHARACTERS = 2000
# renewed while the run lasts, so that the swarm does without a coordinator for days
TICKET_SECONDS = 7 * 24 * 3600.0
CLOCK_TOLERANCE_SECONDS = 60.0

Role = Literal["peer", "coordinator"]
PeerIdText = Annotated[str, Field(pattern=r"^[1-9A-HJ-NP-Za-km-z]{40,64}$")]
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Warrant = Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")]
Moment = Annotated[float, Field(ge=0, allow_inf_nan=False)]
ShortName = Annotated[str, Field(min_length=1, max_length=64)]


class Ticket(BaseModel):
    """The admission of one peer id to one run; both are signed, though they do not stand in it.

    :param issuer: coordinator that signed it; `warrant`: the authority's for the issuer, if that is another one
    :param expires: Unix time
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    name: ShortName
    role: Role
    issued: Moment
    expires: Moment
    issuer: PeerIdText
    warrant: Warrant = ""
    signature: Signature

    def admits(self, peer_id: str, run_id: str, authorities: Iterable[str], now: float | None = None) -> bool:
        """Whether this is a ticket of that peer, for that run, that has not ended."""
        if not self.has_not_ended(now):
            return False
        message = _ticket_message(run_id, peer_id, self.name, self.role, self.issued, self.expires)
        return _is_signed(self.issuer, self.warrant, self.signature, message, run_id, authorities)

    def has_not_ended(self, now: float | None = None) -> bool:
        """Whether its time is not over yet, by our clock."""
        return (time.time() if now is None else now) <= self.expires + CLOCK_TOLERANCE_SECONDS

    @property
    def is_half_over(self) -> bool:
        """Time to have it renewed."""
        return time.time() > (self.issued + self.expires) / 2


class Invitation(BaseModel):
    """What the operator gives to somebody: admits `machines` peer ids, until it expires.

    :param key: names it in the coordinator's books
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    run_id: Annotated[str, Field(max_length=200)]
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    name: ShortName
    role: Role
    expires: Moment
    machines: Annotated[int, Field(ge=1, le=10_000)] = 1
    issuer: PeerIdText
    warrant: Warrant = ""


def write_ticket(
    issuer: Identity,
    run_id: str,
    peer_id: str,
    name: str,
    role: Role = "peer",
    warrant: str = "",
    seconds: float = TICKET_SECONDS,
) -> Ticket:
    """Admit a peer id to a run.

    >>> authority, peer = Identity.generate(), Identity.generate()
    >>> ticket = write_ticket(authority, "demo-1", peer.peer_id, "anna")
    >>> ticket.admits(peer.peer_id, "demo-1", [authority.peer_id])
    True
    >>> ticket.admits(peer.peer_id, "demo-2", [authority.peer_id])
    False
    >>> ticket.admits(Identity.generate().peer_id, "demo-1", [authority.peer_id])
    False
    """
    issued = round(time.time(), 3)
    expires = round(issued + seconds, 3)
    message = _ticket_message(run_id, peer_id, name, role, issued, expires)
    return Ticket(
        name=name,
        role=role,
        issued=issued,
        expires=expires,
        issuer=issuer.peer_id,
        warrant=warrant,
        signature=issuer.sign(message).hex(),
    )


def write_invitation(issuer: Identity, invitation: Invitation) -> str:
    """The token of an invitation, which is a secret."""
    payload = invitation.model_dump_json().encode()
    return TOKEN_PREFIX + _encode(issuer.sign(_invitation_message(payload)) + payload)


def read_invitation(token: str, run_id: str, authorities: Iterable[str]) -> Invitation:
    """The invitation behind a token; raises `BadInput` in words that do not repeat the token."""
    invitation, payload, signature = _parse(token)
    if invitation.run_id != run_id:
        raise BadInput(f"the ticket given is for the run {invitation.run_id}, and this is {run_id}")
    message = _invitation_message(payload)
    if not _is_signed(invitation.issuer, invitation.warrant, signature.hex(), message, run_id, authorities):
        raise BadInput("the ticket given is not signed by a coordinator of this run: ask for an invitation")
    if time.time() > invitation.expires:
        raise BadInput("the invitation has expired: ask for a new one")
    return invitation


def issuer_of(token: str) -> tuple[str, str]:
    """(peer id, run id) of the coordinator that made an invitation, by its own word; raises `BadInput`."""
    invitation, _payload, _signature = _parse(token)
    return invitation.issuer, invitation.run_id


def require_token(token: str) -> str:
    """The token, if it looks like one; raises `BadInput`, so that a slip is told before anything is started."""
    _decode(token)
    return token.strip()


def _parse(token: str) -> tuple[Invitation, bytes, bytes]:
    """The invitation, and its payload and signature, which is not checked yet."""
    raw = _decode(token)
    signature, payload = raw[:SIGNATURE_BYTES], raw[SIGNATURE_BYTES:]
    try:
        return Invitation.model_validate_json(payload), payload, signature
    except ValidationError:
        raise BadInput(
            "the ticket given is not one of Artel's: copy the whole token of `coordinator invite`"
        ) from None


def _decode(token: str) -> bytes:
    text = token.strip()
    try:
        if not text.startswith(TOKEN_PREFIX) or len(text) > MAX_TOKEN_CHARACTERS:
            raise ValueError
        padded = text.removeprefix(TOKEN_PREFIX)
        raw = base64.b64decode(padded + "=" * (-len(padded) % 4), altchars=b"-_", validate=True)
        if len(raw) <= SIGNATURE_BYTES:
            raise ValueError
    except (ValueError, binascii.Error):
        raise BadInput(
            "the ticket given is not one of Artel's: copy the whole token of `coordinator invite`"
        ) from None
    return raw


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _ticket_message(run_id: str, peer_id: str, name: str, role: str, issued: float, expires: float) -> bytes:
    return b"artel ticket " + json.dumps([run_id, peer_id, name, role, issued, expires]).encode()


def _invitation_message(payload: bytes) -> bytes:
    return b"artel invitation " + payload


def _is_signed(
    issuer: str, warrant: str, signature: str, message: bytes, run_id: str, authorities: Iterable[str]
) -> bool:
    known = frozenset(authorities)
    if issuer not in known and not is_warranted(warrant, run_id, issuer, known):
        return False
    return verify(issuer, message, bytes.fromhex(signature))
