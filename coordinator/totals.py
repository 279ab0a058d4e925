"""Running totals of samples over the life of a run, from counters that start anew whenever a peer does."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ValidationError


class Totals(BaseModel):
    """Samples computed, and samples that went into global steps, in all and by peer.

    >>> totals = Totals()
    >>> totals.count("peer", contributed=96, computed=128); totals.count("peer", contributed=8, computed=8)
    >>> totals.samples, totals.computed
    (104, 136)
    """

    samples: int = 0
    computed: int = 0
    by_peer: dict[str, int] = {}
    # the last counters seen of each peer: (contributed, computed)
    counters: dict[str, tuple[int, int]] = {}

    def count(self, peer_id: str, *, contributed: int, computed: int) -> None:
        """Add what a peer's counters have grown by; a counter that fell belongs to a restarted peer."""
        last_contributed, last_computed = self.counters.get(peer_id, (0, 0))
        if computed < last_computed or contributed < last_contributed:
            last_contributed = last_computed = 0
        self.samples += contributed - last_contributed
        self.computed += computed - last_computed
        self.by_peer[peer_id] = self.by_peer.get(peer_id, 0) + contributed - last_contributed
        self.counters[peer_id] = (contributed, computed)

    @classmethod
    def load(cls, path: Path) -> Totals:
        """Totals kept by an earlier coordinator; zero if there are none that can be read."""
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValidationError):
            return cls()
