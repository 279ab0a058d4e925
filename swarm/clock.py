"""The clock of a run: who is alive at which global step, and when the next step is due.

Pure functions of live leases and the head record; nobody's word counts beyond its own lease, a lease ends by itself,
and no lease moves the clock further than the head record makes plausible.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from swarm.records import HeadRecord, Lease
from swarm.spec import RunSpec
from swarm.states import PeerState

# how fast a swarm can step at most, when judging a lease that is ahead of the head record
MIN_SECONDS_PER_STEP = 0.1
# leases are a moment old, and what a departing peer hands over comes at once
WEIGHT_SLACK = 3.0
# coordinators renew their head records every 10 s
HEAD_FRESH_SECONDS = 40.0
# that send parts of one state
MAX_DONORS = 4


@dataclass(frozen=True)
class SwarmView:
    """What one participant sees of the swarm at time `now` (seconds since the epoch).

    >>> view = SwarmView(now=0.0)
    >>> view.members_at(step=0, branch=""), view.newest_step
    ([], 0)
    """

    now: float
    leases: Mapping[str, Lease] = field(default_factory=dict)
    head: HeadRecord | None = None
    coordinators: tuple[str, ...] = ()

    @property
    def newest_step(self) -> int:
        """The highest step of a live contributing lease or the head record.

        Peers in client mode count only among themselves: nobody can fetch a state from them.
        """
        contributing = [lease for lease in self.leases.values() if lease.state.contributes]
        steps = [lease.step for lease in contributing if not lease.client_mode] or [
            lease.step for lease in contributing
        ]
        return max([self.head.step if self.head else 0, *steps])

    def branches_at(self, step: int) -> Mapping[str, list[str]]:
        """Contributing peers at a step by branch; more than one branch means that parts trained apart."""
        return self._branches.get(step, {})

    def leading_branch(self, step: int) -> str | None:
        """The branch that everyone at this step should be on; None if nobody is there.

        The head record's if it is at this step, else that of most peers from whom a state can be fetched, else of
        most peers; ties are broken in the same way by everyone.
        """
        return self._leading.get(step)

    # looked up for every peer: computed once per view, or 500 peers cost a quarter of a million comparisons
    @cached_property
    def _branches(self) -> dict[int, dict[str, list[str]]]:
        branches: dict[int, dict[str, list[str]]] = {}
        for peer, lease in sorted(self.leases.items()):
            if lease.state.contributes:
                branches.setdefault(lease.step, {}).setdefault(lease.branch, []).append(peer)
        return branches

    @cached_property
    def _leading(self) -> dict[int, str]:
        return {step: self._leader(step, branches) for step, branches in self._branches.items()}

    def _leader(self, step: int, branches: Mapping[str, list[str]]) -> str:
        if self.head is not None and self.head.step == step and self.head.branch in branches:
            return self.head.branch
        donors = {
            branch: sum(not self.leases[peer].client_mode for peer in peers)
            for branch, peers in branches.items()
        }
        return max(branches, key=lambda branch: (donors[branch], len(branches[branch]), branch))

    def has_left_behind(self, step: int, branch: str) -> bool:
        """Whether the swarm is further than this state, or at its step on another branch."""
        return self.newest_step > step or self.leading_branch(step) not in (None, branch)

    def members_at(self, step: int, branch: str) -> list[str]:
        """Peers that take part in the global step that starts from `step` of `branch`."""
        return self.branches_at(step).get(branch, [])

    def samples_at(self, step: int, branch: str) -> int:
        """Samples that everyone has reported for this step."""
        return sum(self.leases[peer].samples for peer in self.members_at(step, branch))

    def is_due(self, step: int, branch: str, target_batch_size: int) -> bool:
        """Whether the step may be made: enough samples, or somebody who saw enough has begun to average."""
        return self.samples_at(step, branch) >= target_batch_size or any(
            self.leases[peer].state is PeerState.AVERAGING and self.leases[peer].samples > 0
            for peer in self.members_at(step, branch)
        )

    def is_near(self, step: int, branch: str, target_batch_size: int) -> bool:
        """Whether the step would be due if everyone went on at its own speed since its last report.

        The moment for everyone to report afresh, so that the decision falls on real counts and without delay.
        """
        members = self.members_at(step, branch)
        projected = sum(projected_samples(self.leases[peer], self.now) for peer in members)
        return projected >= target_batch_size

    def seconds_until_due(self, step: int, branch: str, target_batch_size: int) -> float:
        """How long until the step is due if everyone goes on at its own speed; infinite if nobody computes."""
        members = [self.leases[peer] for peer in self.members_at(step, branch)]
        missing = target_batch_size - sum(projected_samples(lease, self.now) for lease in members)
        speed = sum(lease.samples_per_second for lease in members if lease.state is PeerState.TRAINING)
        if missing <= 0:
            return 0.0
        return missing / speed if speed > 0 else math.inf

    def weights_at(self, step: int, branch: str, target_batch_size: int) -> dict[str, float]:
        """Most that each peer's gradient of this step may weigh: what it reported, with room for what came since."""
        return {
            peer: max(WEIGHT_SLACK * projected_samples(self.leases[peer], self.now), target_batch_size)
            for peer in self.members_at(step, branch)
        }

    def heirs(self, step: int, branch: str, exclude: str) -> list[str]:
        """Peers that can take over what another one has accumulated for this step, the fastest first."""
        able = [
            (self.leases[peer].samples_per_second, peer)
            for peer in self.members_at(step, branch)
            if peer != exclude and not self.leases[peer].departing and not self.leases[peer].client_mode
        ]
        return [peer for _speed, peer in sorted(able, reverse=True)]

    def donors(self, min_step: int, exclude: str) -> list[str]:
        """Whom to ask for a state of at least `min_step`: the furthest of the leading branch, then coordinators.

        Among equals everyone who asks has another order, so that newcomers do not crowd one donor.
        """
        able = [
            (lease.step, hashlib.sha256(f"{exclude} {peer}".encode()).digest(), peer)
            for peer, lease in self.leases.items()
            if peer != exclude
            and lease.state.contributes
            and not lease.client_mode
            and lease.step >= min_step
            and lease.branch == self.leading_branch(lease.step)
        ]
        peers = [peer for _step, _lot, peer in sorted(able, reverse=True)]
        return peers + [peer for peer in self.coordinators if peer != exclude]

    def fellows(self, donors: Sequence[str]) -> list[str]:
        """The first of the donors, and others that have the same state: at most `MAX_DONORS` of one step and branch."""
        first = self.leases.get(donors[0])
        if first is None:  # a coordinator's state has a digest of its own
            return [donors[0]]
        of_first = (first.step, first.branch)
        leases = ((donor, self.leases.get(donor)) for donor in donors)
        same = [
            donor for donor, lease in leases if lease is not None and (lease.step, lease.branch) == of_first
        ]
        return same[:MAX_DONORS]


def make_view(
    leases: Mapping[str, Lease], heads: Mapping[str, HeadRecord], spec: RunSpec, now: float
) -> SwarmView:
    """Build a view from records read from the DHT: drops the dead, and leases that no head makes plausible."""
    live_heads = {peer: head for peer, head in heads.items() if head.expires > now}
    # a lost coordinator's last word must not hold up a run that another one serves
    fresh_heads = {peer: head for peer, head in live_heads.items() if now - head.issued < HEAD_FRESH_SECONDS}
    live_heads = fresh_heads or live_heads
    coordinators = tuple(sorted(live_heads, key=lambda peer: (live_heads[peer].step, peer), reverse=True))
    head = live_heads[coordinators[0]] if coordinators else None
    live = {
        peer: lease
        for peer, lease in leases.items()
        if lease.expires > now
        and (head is None or lease.step <= plausible_step(head.step, head.reached, spec, now))
    }
    return SwarmView(now=now, leases=live, head=head, coordinators=coordinators)


def projected_samples(lease: Lease, now: float) -> int:
    """Samples a peer has by now, if it went on at its own speed since it signed the lease."""
    if lease.state is not PeerState.TRAINING:
        return lease.samples
    age = min(max(0.0, now - lease.issued), lease.expires - lease.issued)
    return lease.samples + int(age * lease.samples_per_second)


def plausible_step(step: int, reached: float, spec: RunSpec, now: float) -> int:
    """The highest step that anybody can be at, if a coordinator has seen the swarm at `step` when it was `reached`."""
    slack = 2 * max(spec.checkpoints.every_steps, spec.checkpoints.follow_every_steps)
    return step + slack + int(max(0.0, now - reached) / MIN_SECONDS_PER_STEP)
