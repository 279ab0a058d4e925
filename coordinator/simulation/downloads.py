"""Newcomers fetching the state: from one donor all at once, each with its share of that donor's bandwidth.

As in `swarm.clock`, every newcomer asks the same donor, the last in order of those at the newest step; without any it
asks the coordinator, whose link is not the bottleneck here. A state that the swarm has left behind while it travelled
is fetched once more; a donor that goes away takes its downloads with it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from coordinator.simulation.simulated_peer import SimulatedPeer
from coordinator.simulation.swarm_model import SimulatedSwarm
from coordinator.simulation.timings import BANDWIDTH_EFFICIENCY, BITS

RETRY_SECONDS = 1.0
SAME_MOMENT = 1e-6


@dataclass(eq=False)
class _Download:
    """`remaining` megabits at the time of the last change; `step` is what the donor had when it began."""

    peer: SimulatedPeer
    life: int
    donor: SimulatedPeer | None
    step: int
    remaining: float
    gives_up: float
    rate: float = 0.0
    completes: float = math.inf


class Downloads:
    """Brings newcomers the state.

    :param ready: called with a peer that holds the current state
    """

    def __init__(self, swarm: SimulatedSwarm, ready: Callable[[SimulatedPeer], None]):
        self.swarm, self.ready = swarm, ready
        self._active: list[_Download] = []
        self._marked = 0.0
        self._version = 0
        self._changing = False

    def begin(self, peer: SimulatedPeer, life: int) -> None:
        """Ask for the state; at step 0 everyone has it."""
        if peer.life != life:
            return
        swarm = self.swarm
        if swarm.step == 0:
            self.ready(peer)
            return
        fixed = swarm.timings.download(swarm.sizes.state, math.inf)
        swarm.queue.at(swarm.now + fixed, self._transfer, peer, life, swarm.step)

    def gone(self, peer: SimulatedPeer) -> None:
        """It downloads no more, and is nobody's donor any more."""
        orphans = [one for one in self._active if one.donor is peer]
        if orphans or any(one.peer is peer for one in self._active):
            self._active = [one for one in self._active if one.peer is not peer and one.donor is not peer]
            self._change()
        for one in orphans:
            self.swarm.queue.at(self.swarm.now + RETRY_SECONDS, self.begin, one.peer, one.life)

    def _transfer(self, peer: SimulatedPeer, life: int, step: int) -> None:
        """The donor has answered; what is left is bandwidth."""
        if peer.life != life:
            return
        swarm = self.swarm
        megabits = swarm.sizes.state * BITS / BANDWIDTH_EFFICIENCY
        gives_up = swarm.now + swarm.spec.averaging.download_timeout
        self._active.append(_Download(peer, life, self._donor(), step, megabits, gives_up))
        self._change()

    def _donor(self) -> SimulatedPeer | None:
        """Any member: `SwarmView.donors` has another order for everyone who asks; None: the coordinator."""
        members = sorted(self.swarm.members.values(), key=lambda member: member.number)
        return self.swarm.rng.choice(members) if members else None

    def _change(self) -> None:
        """Downloads come or go; many in the same moment are one change."""
        if not self._changing:
            self._changing = True
            self.swarm.queue.at(self.swarm.now, self._share)

    def _share(self) -> None:
        """Everyone's rate changes."""
        self._changing = False
        now, elapsed = self.swarm.now, self.swarm.now - self._marked
        self._marked = now
        users = Counter(one.donor for one in self._active)
        earliest = math.inf
        for one in self._active:
            if elapsed > 0.0 and one.rate:
                one.remaining -= one.rate * elapsed
            upload = one.donor.traits.bandwidth / users[one.donor] if one.donor else math.inf
            one.rate = min(one.peer.traits.bandwidth, upload)
            one.completes = now + one.remaining / one.rate
            earliest = min(earliest, one.completes, one.gives_up)
        self._version += 1
        if self._active:
            self.swarm.queue.at(earliest, self._finish, self._version)

    def _finish(self, version: int) -> None:
        if version != self._version:
            return
        now = self.swarm.now
        over = [one for one in self._active if min(one.completes, one.gives_up) <= now + SAME_MOMENT]
        given_up = {one for one in over if one.completes > now + SAME_MOMENT}
        self._active = [one for one in self._active if min(one.completes, one.gives_up) > now + SAME_MOMENT]
        self._change()
        for one in over:
            if one.peer.life != one.life:
                continue
            if one in given_up:
                self.swarm.queue.at(now + RETRY_SECONDS, self.begin, one.peer, one.life)
            elif one.step < self.swarm.step:
                self.begin(one.peer, one.life)  # the swarm has moved on meanwhile
            else:
                self.ready(one.peer)
