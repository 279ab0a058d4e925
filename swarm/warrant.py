"""Several coordinators of one run: the run's authority warrants that another peer may sign head records.

The authority is the identity that signed the run bundle. A warrant is its signature over the run and the peer id it is
for, so it is worth nothing in another run or to anybody else.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarm.identity import SIGNATURE_BYTES, Identity, verify


def write_warrant(authority: Identity, run_id: str, deputy: str) -> str:
    """The authority's word, in hex, that peer `deputy` coordinates the run as well.

    >>> authority, deputy = Identity.generate(), Identity.generate().peer_id
    >>> warrant = write_warrant(authority, "demo-1", deputy)
    >>> is_warranted(warrant, "demo-1", deputy, [authority.peer_id])
    True
    >>> is_warranted(warrant, "demo-2", deputy, [authority.peer_id])
    False
    """
    return authority.sign(_message(run_id, deputy)).hex()


def is_warranted(warrant: str, run_id: str, deputy: str, authorities: Iterable[str]) -> bool:
    """Whether one of the authorities has warranted this deputy."""
    try:
        signature = bytes.fromhex(warrant)
    except ValueError:
        return False
    if len(signature) != SIGNATURE_BYTES:
        return False
    return any(verify(authority, _message(run_id, deputy), signature) for authority in authorities)


def _message(run_id: str, deputy: str) -> bytes:
    return f"artel coordinator {run_id} {deputy}".encode()
