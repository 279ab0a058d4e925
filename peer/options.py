"""The options of `peer join`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peer.grace import DEFAULT_GRACE_SECONDS
from peer.preemption import PreemptionNotice
from swarm.addresses import Address


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
