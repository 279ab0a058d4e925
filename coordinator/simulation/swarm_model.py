"""The simulated swarm between rounds: who computes, who is only believed to, and when the next step is due.

Samples grow linearly, so the moment is computed, not waited for: a lower bound from sums kept up to date, then the
exact micro-batch that reaches `target_batch_size`. Leases are not events either: a dead peer's last lease (`Ghost`)
counts until it expires or the step is over, as in `swarm.clock`.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Iterable

from coordinator.simulation.churn import Script
from coordinator.simulation.events import EventQueue
from coordinator.simulation.ledger import Ledger, OnlineTimeline
from coordinator.simulation.simulated_peer import Doing, Ghost, SimulatedPeer
from coordinator.simulation.sizes import TransferSizes
from coordinator.simulation.timings import Timings
from swarm.spec import RunSpec

# how often a peer looks at the others' leases, and reports afresh when the step is near
VIEWS_PER_LEASE = 4


class SimulatedSwarm:
    """State shared by rounds and lives of a simulation.

    :param on_due: called when enough samples have been reported and no round is under way
    :param pace: on a shared machine, speed relative to the peers' own by how many compute
    """

    def __init__(
        self,
        spec: RunSpec,
        script: Script,
        timings: Timings,
        sizes: TransferSizes,
        seed: int,
        timeline: OnlineTimeline,
        pace: Callable[[int], float] | None = None,
    ):
        self.spec, self.timings, self.sizes, self.timeline = spec, timings, sizes, timeline
        self.queue, self.ledger = EventQueue(), Ledger()
        self.rng = random.Random(f"rounds {seed}")
        self.peers = [
            SimulatedPeer(number, traits, spec.training.micro_batch_size)
            for number, traits in enumerate(script.peers)
        ]
        self.step = 0
        self.members: dict[int, SimulatedPeer] = {}  # computing at this step and reachable
        self.idle: dict[int, SimulatedPeer] = {}  # told to go, staying for the step
        self.on_due: Callable[[], None] = lambda: None
        self.in_round = False
        self._ghosts: list[Ghost] = []
        self._samples_at_zero = 0.0
        self._rate = 0.0
        self._version = 0
        self._pace_at = pace
        self._pace = 1.0

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self.queue.now

    @property
    def present(self) -> list[SimulatedPeer]:
        """Everyone who is really there for the step, in a fixed order."""
        return [*self.members.values(), *self.idle.values()]

    def compute(self, peer: SimulatedPeer) -> None:
        """The peer holds the current state and computes from now on."""
        peer.turn_to(Doing.COMPUTING, self.now)
        peer.state_step = self.step
        self.members[peer.number] = peer
        self._repace()
        peer.set_rate(self.rate_of(peer), self.now)
        self._count(peer, +1)
        self.reschedule()

    def stay_for_step(self, peer: SimulatedPeer) -> None:
        """The peer stops computing, and its samples go on counting."""
        self._count(peer, -1)
        del self.members[peer.number]
        peer.set_rate(0.0, self.now)
        peer.turn_to(Doing.WAITING, self.now)
        self.idle[peer.number] = peer
        self._count(peer, +1)
        self._repace()

    def drop(self, peer: SimulatedPeer) -> None:
        """The peer is no longer there, or is in a round."""
        if self.members.pop(peer.number, None) or self.idle.pop(peer.number, None):
            self._count(peer, -1)
            self._repace()

    def give(self, peer: SimulatedPeer, samples: int) -> None:
        """A member takes over a leaving peer's samples."""
        self._count(peer, -1)
        peer.carried += samples
        self._count(peer, +1)
        self.reschedule()

    def leave_ghost(self, peer: SimulatedPeer) -> None:
        """The peer vanished without a word: its last lease stays."""
        leases = self.spec.leases
        age = self.rng.random() * leases.period
        reported = max(peer.carried, peer.samples(self.now) - math.ceil(age * peer.rate))
        self._ghosts.append(Ghost(peer.number, self.now - age + leases.expiration, reported, self.step))

    def forget_ghost(self, peer: SimulatedPeer) -> None:
        """The peer is back and speaks for itself."""
        self._ghosts = [ghost for ghost in self._ghosts if ghost.peer != peer.number]

    def ghosts(self, t: float) -> list[Ghost]:
        """Leases at the current step of peers that are not there."""
        self._ghosts = [ghost for ghost in self._ghosts if ghost.step == self.step and ghost.expires > t]
        return self._ghosts

    def rate_of(self, peer: SimulatedPeer) -> float:
        """Samples per second; on a shared machine more when fewer compute."""
        return peer.traits.samples_per_second * self._pace

    def view_lag(self) -> float:
        """Seconds until somebody's change is seen by one other peer."""
        period = self.spec.leases.period / VIEWS_PER_LEASE
        return self.rng.random() * period + self.timings.lease_seconds

    def expected_due(self) -> float:
        """About when the next step is due, if nobody comes or goes."""
        missing = self.spec.training.target_batch_size - self._ghost_samples() - self._samples_at_zero
        return max(self.now, missing / self._rate) if self._rate > 0 else math.inf

    def reschedule(self) -> None:
        """Somebody came or went: look again when the step can be due at the earliest."""
        self._version += 1
        if not self.in_round:
            reached = self._ghost_samples() + self._samples_at_zero + self._rate * self.now
            due = reached >= self.spec.training.target_batch_size
            earliest = self.now if due and self.present else self.expected_due()
            if earliest < math.inf:
                self.queue.at(earliest, self._check, self._version)

    def _check(self, version: int) -> None:
        if version != self._version or self.in_round:
            return
        due = self._exact_due()
        if due <= self.now:
            self.on_due()
        elif due < math.inf:
            self.queue.at(due, self._check, version)

    def _exact_due(self) -> float:
        """When the micro-batch ends that reaches the target."""
        missing = self.spec.training.target_batch_size - self._ghost_samples()
        missing -= sum(peer.samples(self.now) for peer in self.present)
        if missing <= 0:
            return self.now
        ends = [
            (self._next_count(peer), peer.number, peer) for peer in self.members.values() if peer.rate > 0
        ]
        heapq.heapify(ends)
        while ends:
            end, number, peer = ends[0]
            missing -= peer.micro_batch
            if missing <= 0:
                # a hair later, or rounding leaves the last micro-batch unfinished
                return end + 1e-9 * max(1.0, end)
            heapq.heapreplace(ends, (end + peer.micro_batch / peer.rate, number, peer))
        return math.inf

    def _next_count(self, peer: SimulatedPeer) -> float:
        wanted = peer.own_samples(self.now) + peer.micro_batch
        return self.now + (wanted - peer.progress(self.now)) / peer.rate

    def _ghost_samples(self) -> int:
        return sum(ghost.samples for ghost in self.ghosts(self.now))

    def _count(self, peer: SimulatedPeer, sign: int) -> None:
        """Add a peer to (or take it from) the sums, which must be done around every change of its pace."""
        self._rate += sign * peer.rate
        self._samples_at_zero += sign * (peer.progress(self.now) - peer.rate * self.now + peer.carried)
        if not self.members and not self.idle:
            self._rate = self._samples_at_zero = 0.0

    def _repace(self) -> None:
        """On a shared machine everyone's pace depends on how many compute."""
        pace = self._pace_at(len(self.members)) if self._pace_at else 1.0
        if pace == self._pace:
            return
        self._pace = pace
        counted = [peer for peer in self.members.values() if peer.rate > 0]
        for peer in counted:
            self._count(peer, -1)
            peer.set_rate(self.rate_of(peer), self.now)
            self._count(peer, +1)


def slowest(peers: Iterable[SimulatedPeer]) -> float:
    """The lowest bandwidth in a group, Mbit/s."""
    return min((peer.traits.bandwidth for peer in peers), default=math.inf)
