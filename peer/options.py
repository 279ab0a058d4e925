"""The options of `peer join`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from peer.grace import DEFAULT_GRACE_SECONDS
from peer.preemption import PreemptionNotice
from swarm.addresses import Address
from swarm.errors import BadInput
from swarm.records import ShortText


@dataclass(frozen=True)
class JoinOptions:
    """What may differ between peers; everything else comes from the run bundle."""

    addresses: Sequence[Address]
    fingerprint: str | None = None
    name: str | None = None
    device: str | None = None
    ranks: int | None = None
    micro_batch_size: int | None = None
    precision: str | None = None
    gradient_checkpointing: bool = False
    compiled: bool = False
    client_mode: bool = False
    host_maddrs: Sequence[str] = ()
    announce_maddrs: Sequence[str] = ()
    cache_dir: Path = Path()
    stop_after_steps: int | None = None
    grace: float = DEFAULT_GRACE_SECONDS
    invitation: str | None = None
    preemption_notice: PreemptionNotice | None = None


def require_valid_name(name: str) -> None:
    """Raise `BadInput` if a peer's record cannot carry this name."""
    if not name.strip():
        raise BadInput("--name is empty: give a name, or leave --name out")
    try:
        TypeAdapter(ShortText).validate_python(name)
    except ValidationError as error:
        raise BadInput(
            f"--name cannot be used ({error.errors()[0]['msg']}): give a shorter or plainer one"
        ) from None
