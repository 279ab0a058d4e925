"""The states of a peer: the same words in code, leases, logs, API and page.

joining → syncing → training ⇄ averaging → leaving        and `stalled`; others see `lost`
"""

from __future__ import annotations

from enum import Enum


class PeerState(str, Enum):
    """What a peer says of itself, except `lost`, which only others can see."""

    JOINING = "joining"
    SYNCING = "syncing"
    TRAINING = "training"
    AVERAGING = "averaging"
    LEAVING = "leaving"
    STALLED = "stalled"
    LOST = "lost"

    @property
    def contributes(self) -> bool:
        """Whether a peer in this state takes part in the current global step."""
        return self in (PeerState.TRAINING, PeerState.AVERAGING)
