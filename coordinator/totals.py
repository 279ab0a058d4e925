"""Running totals of samples over the life of a run, from counters that start anew whenever a peer does."""

from __future__ import annotations

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.unreadable import why_unreadable
from swarm.records import MAX_COUNT

logger = logging.getLogger(__name__)

# what SQLite and the control API count with
MAX_TOTAL = 2**63 - 1
# a machine that slept over a long weekend goes on with the counters it had: they must be known still
FORGOTTEN_AFTER_SECONDS = 7 * 24 * 3600.0


class Counters(BaseModel):
    """Samples of one peer, or of all.

    :param computed: forward and backward passes made
    :param contributed: put into global steps, whoever computed them
    :param handed_over: computed here, taken over by another peer when this one left; `taken_over`: the other side
    """

    model_config = ConfigDict(frozen=True)

    computed: int = 0
    contributed: int = 0
    handed_over: int = 0
    taken_over: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            **{name: getattr(self, name) + getattr(other, name) for name in Counters.model_fields}
        )

    def __sub__(self, other: Counters) -> Counters:
        return Counters(
            **{name: getattr(self, name) - getattr(other, name) for name in Counters.model_fields}
        )

    def at_most(self, most: int) -> Counters:
        """These, none above `most`."""
        return Counters(**{name: min(getattr(self, name), most) for name in Counters.model_fields})

    def fell_below(self, other: Counters) -> bool:
        """Whether any counter is lower than it was: its peer has been restarted."""
        return any(getattr(self, name) < getattr(other, name) for name in Counters.model_fields)

    def goodput(self, pending: int) -> float | None:
        """Samples that went into global steps / samples computed; those still pending count as neither.

        >>> Counters(computed=100, contributed=60, handed_over=20).goodput(pending=10)
        0.8888888888888888
        """
        settled = self.computed - pending
        if settled <= 0:
            return None
        return min(1.0, max(0.0, (self.contributed + self.handed_over - self.taken_over) / settled))


class Totals(BaseModel):
    """Samples in all and by peer, without the peers that have not been heard for long.

    >>> totals = Totals()
    >>> totals.count("peer", Counters(contributed=96, computed=128))
    >>> totals.count("peer", Counters(contributed=8, computed=8))
    >>> totals.all.contributed, totals.all.computed
    (104, 136)
    """

    all: Counters = Counters()
    by_peer: dict[str, Counters] = {}
    # the last counters seen of each peer
    last: dict[str, Counters] = {}
    # seconds, of those in which a coordinator listened, since each peer was counted
    unheard: dict[str, float] = {}

    def count(self, peer_id: str, now: Counters) -> None:
        """Add what a peer's counters have grown by; a counter that fell belongs to a restarted peer.

        However often it falls, no peer comes to more than one process can count to, and sums end at `MAX_TOTAL`.
        """
        before = self.last.get(peer_id, Counters())
        growth = now if now.fell_below(before) else now - before
        had = self.by_peer.get(peer_id, Counters())
        has = (had + growth).at_most(MAX_COUNT)
        self.all = (self.all + (has - had)).at_most(MAX_TOTAL)
        self.by_peer[peer_id] = has
        self.last[peer_id] = now
        self.unheard[peer_id] = 0.0

    def age(self, seconds: float) -> None:
        """Let time pass in which a coordinator listened; who was silent for long is forgotten, except in `all`."""
        for peer_id in list(self.last):
            self.unheard[peer_id] = self.unheard.get(peer_id, 0.0) + seconds
            if self.unheard[peer_id] > FORGOTTEN_AFTER_SECONDS:
                for numbers in (self.by_peer, self.last, self.unheard):
                    del numbers[peer_id]

    @classmethod
    def load(cls, path: Path) -> Totals:
        """Totals kept by an earlier coordinator; zero, with a word in the log, if they cannot be read.

        Earlier versions believed every count: peers that claimed more than any can have are left out.
        """
        try:
            totals = cls.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValidationError) as error:
            logger.warning(
                "%s cannot be read (%s): the run's samples are counted from zero; to go on from a copy of it, stop "
                "the coordinator and put the copy there",
                path,
                why_unreadable(error),
            )
            return cls()
        believable = {peer: has for peer, has in totals.by_peer.items() if has == has.at_most(MAX_COUNT)}
        if len(believable) == len(totals.by_peer):
            return totals
        everybody = sum(believable.values(), Counters()).at_most(MAX_TOTAL)
        return totals.model_copy(update={"all": everybody, "by_peer": believable})
