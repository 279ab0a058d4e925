"""Notices that parts of a swarm trained apart: the same global step, reached by different averaging rounds.

The other side of a cut cannot be seen while it lasts. What gives it away is a peer that was out of sight and comes
back having made steps of its own, while those in sight went on as well.
"""

from __future__ import annotations

from itertools import takewhile

from swarm.clock import SwarmView

REMEMBERED_STEPS = 10_000
# whoever was out of sight for longer is nobody's other side any more
REMEMBERED_SECONDS = 7 * 24 * 3600.0
# how long a split is shown after its end: peers of the lower side reload within a second
SHOWN_SECONDS = 15.0


class Lineage:
    """Which branch the swarm was on at every step that was seen, and where each peer was last.

    :param out_of_sight: seconds without a live lease after which a peer may have been cut off

    >>> lineage = Lineage(out_of_sight=4.0)
    >>> lineage.observe(SwarmView(now=0.0))
    []
    """

    def __init__(self, out_of_sight: float) -> None:
        self.out_of_sight = out_of_sight
        self._branches: dict[int, str] = {}
        # the longest out of sight first
        self._last_seen: dict[str, tuple[float, int]] = {}
        self._newest = (0.0, 0)
        self._shown_until: dict[str, float] = {}

    def observe(self, view: SwarmView) -> list[str]:
        """Remember what everyone is on; returns the peers that have trained apart, for a while after it was seen."""
        for peer in sorted(view.leases):
            if self._has_been_apart(view, peer):
                self._shown_until[peer] = view.now + SHOWN_SECONDS
        self._remember(view)
        return sorted(self._shown_until)

    def _has_been_apart(self, view: SwarmView, peer: str) -> bool:
        lease = view.leases[peer]
        known = self._branches.get(lease.step)
        if lease.state.contributes and lease.branch != view.leading_branch(lease.step):
            return True
        seen_at, seen_step = self._last_seen.get(peer, (view.now, lease.step))
        went_on_unseen = view.now - seen_at > self.out_of_sight and lease.step > seen_step
        # the newest step in sight was reached while this peer was not
        so_did_the_others = self._newest[0] > seen_at and self._newest[1] > seen_step
        return went_on_unseen and so_did_the_others and lease.branch != known

    def _remember(self, view: SwarmView) -> None:
        for peer, lease in view.leases.items():
            self._last_seen.pop(peer, None)
            self._last_seen[peer] = (view.now, lease.step)
            if lease.state.contributes and (leading := view.leading_branch(lease.step)) is not None:
                self._branches.setdefault(lease.step, leading)
        self._forget(view.now)
        newest = max((lease.step for lease in view.leases.values() if lease.state.contributes), default=0)
        if newest > self._newest[1]:
            self._newest = (view.now, newest)
        elif newest and newest < self._newest[1]:  # steps are made again: what they were before is over
            self._newest = (view.now, newest)
            self._branches = {step: branch for step, branch in self._branches.items() if step <= newest}
        for step in sorted(self._branches)[:-REMEMBERED_STEPS]:
            del self._branches[step]

    def _forget(self, now: float) -> None:
        self._shown_until = {peer: until for peer, until in self._shown_until.items() if now < until}
        gone = takewhile(lambda peer: self._last_seen[peer][0] < now - REMEMBERED_SECONDS, self._last_seen)
        for peer in list(gone):
            del self._last_seen[peer]
