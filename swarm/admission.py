"""Who may take part in a run: everybody, or those with a ticket; and in both cases not those who were evicted.

Every process of a participant that listens to others has an `Admission` of its own: the DHT's process checks records
and requests with it, the averager's process calls, the main process what it serves. What they learn of evictions comes
from the coordinators' signed record, which every DHT node reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from swarm.ticket import Ticket

MAX_TICKET_BYTES = 2048
REMEMBERED_TICKETS = 8192


class NotAdmitted(PermissionError):
    """A call came from somebody who may not take part; says what is missing, in words for that person."""


class Admission:
    """The rule of one run, and what this process knows of tickets and evictions.

    :param authorities: peer ids that stand above the rule: they sign tickets
    :param by_invitation: whether taking part needs a ticket
    :param own_ticket: ours, to show to others
    """

    def __init__(
        self,
        run_id: str,
        authorities: Iterable[str],
        *,
        by_invitation: bool = False,
        own_ticket: Ticket | None = None,
    ):
        self.run_id, self.authorities = run_id, frozenset(authorities)
        self.by_invitation, self.own_ticket = by_invitation, own_ticket
        self._evicted_by: dict[str, tuple[float, frozenset[str]]] = {}
        self._evicted: frozenset[str] = frozenset()
        # a signature is checked once, not with every record and call
        self._good: dict[tuple[str, str], Ticket] = {}

    @property
    def evicted(self) -> frozenset[str]:
        """Peer ids whose admission a coordinator has ended."""
        return self._evicted

    def take_evictions(self, coordinator: str, issued: float, evicted: Iterable[str]) -> None:
        """Remember what a coordinator's record says, unless we know a newer one of it."""
        known_since = self._evicted_by.get(coordinator, (-1.0, frozenset()))[0]
        if issued >= known_since:
            self._evicted_by[coordinator] = (issued, frozenset(evicted) - self.authorities)
            self._evicted = frozenset().union(*(peers for _issued, peers in self._evicted_by.values()))

    def admits(self, peer_id: str, ticket: Ticket | None) -> bool:
        """Whether this peer may take part; in a run by invitation its ticket must hold."""
        if peer_id in self._evicted:
            return False
        if not self.by_invitation or peer_id in self.authorities:
            return True
        return ticket is not None and self._holds(peer_id, ticket)

    def admits_coordinator(self, peer_id: str) -> bool:
        """Whether a peer whose record carries the authority's warrant still has a say."""
        return peer_id not in self._evicted

    def require(self, peer_id: str, shown: bytes) -> None:
        """Raise `NotAdmitted` unless `shown`, JSON of a ticket or nothing, admits that peer."""
        if peer_id in self._evicted:
            raise NotAdmitted("this peer was evicted from the run by its coordinator")
        if not self.admits(peer_id, parse_ticket(shown)):
            raise NotAdmitted(
                "this run is by invitation: ask its operator for a ticket (`coordinator invite`) "
                "and give it to `peer join` with --ticket"
            )

    def show(self) -> bytes:
        """Our ticket as `require` of others wants to see it."""
        return b"" if self.own_ticket is None else self.own_ticket.model_dump_json().encode()

    def _holds(self, peer_id: str, ticket: Ticket) -> bool:
        if self._good.get((peer_id, ticket.signature)) == ticket:
            # what may have changed since is only the time
            return ticket.has_not_ended()
        if not ticket.admits(peer_id, self.run_id, self.authorities):
            return False
        while len(self._good) >= REMEMBERED_TICKETS:
            del self._good[next(iter(self._good))]
        self._good[peer_id, ticket.signature] = ticket
        return True


def parse_ticket(raw: bytes | str | Mapping[str, Any]) -> Ticket | None:
    """A ticket from the network; None if it is none."""
    if isinstance(raw, bytes | str) and not 0 < len(raw) <= MAX_TICKET_BYTES:
        return None
    try:
        return Ticket.model_validate_json(raw) if isinstance(raw, bytes | str) else Ticket.model_validate(raw)
    except (ValidationError, json.JSONDecodeError):
        return None
