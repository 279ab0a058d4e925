"""Notices that parts of a swarm trained apart: the same global step, reached by different averaging rounds."""

from __future__ import annotations

from swarm.clock import SwarmView

REMEMBERED_STEPS = 10_000


class Lineage:
    """Which branch the swarm was on at every step that was seen.

    >>> lineage = Lineage(); lineage.observe(SwarmView(now=0.0))
    []
    """

    def __init__(self) -> None:
        self._branches: dict[int, str] = {}

    def observe(self, view: SwarmView) -> list[str]:
        """Remember what everyone is on; the live peers that are at a step of another branch than the swarm was."""
        apart: list[str] = []
        for step in sorted({lease.step for lease in view.leases.values() if lease.state.contributes}):
            leading = view.leading_branch(step)
            if leading is None:
                continue
            known = self._branches.setdefault(step, leading)
            for branch, peers in view.branches_at(step).items():
                apart += peers if branch != known else []
        for step in sorted(self._branches)[:-REMEMBERED_STEPS]:
            del self._branches[step]
        return apart
