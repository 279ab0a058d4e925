"""The lives of simulated peers: starting, fetching the state, being killed, told to go, frozen, cut off, coming back.

Leaving politely is assumed to work as designed: a peer told to go stays for a step that is near enough, otherwise it
hands its samples over to another peer; what it cannot do within the grace period is lost as in a kill.
"""

from __future__ import annotations

import math

from coordinator.simulation.averaging_rounds import AveragingRounds
from coordinator.simulation.churn import Happening
from coordinator.simulation.downloads import Downloads
from coordinator.simulation.ledger import Loss
from coordinator.simulation.simulated_peer import Doing, SimulatedPeer
from coordinator.simulation.storm_report import StormEventKind
from coordinator.simulation.swarm_model import SimulatedSwarm
from coordinator.simulation.timings import BANDWIDTH_EFFICIENCY, BITS


class Lives:
    """Applies what happens to peers.

    :param grace: seconds between being told to go and having to be gone
    """

    def __init__(self, swarm: SimulatedSwarm, grace: float):
        self.swarm, self.grace = swarm, grace
        self.rounds = AveragingRounds(swarm, reload=self._reload, depart=self._depart)
        self.downloads = Downloads(swarm, ready=self._ready)

    def apply(self, happening: Happening) -> None:
        """What fits nobody's present situation (killing the dead, waking the awake) is passed over."""
        peer = self.swarm.peers[happening.peer]
        kinds = {
            StormEventKind.START: self._start,
            StormEventKind.KILL: self._kill,
            StormEventKind.LEAVE: self._leave,
            StormEventKind.FREEZE: self._freeze,
            StormEventKind.RESUME: self._resume,
            StormEventKind.CUT: self._cut,
            StormEventKind.HEAL: self._heal,
        }
        if (peer.doing is Doing.GONE) == (happening.kind is StormEventKind.START):
            kinds[happening.kind](peer)

    def end(self) -> None:
        """The simulated time is over: what was computed and went into no step is pending."""
        swarm, now = self.swarm, self.swarm.now
        swarm.timeline.pass_time(now)
        for peer in swarm.peers:
            if peer.doing is not Doing.GONE:
                own, samples = peer.take(now)
                swarm.ledger.computed += own
                swarm.ledger.pending += samples
                swarm.ledger.visits += 1
                swarm.ledger.visits_without_step += not peer.made_a_step
            peer.turn_to(peer.doing, now)

    # Coming.

    def _start(self, peer: SimulatedPeer) -> None:
        peer.life += 1
        peer.leaving, peer.reachable, peer.frozen_since = False, True, math.inf
        peer.made_a_step, peer.started = False, self.swarm.now
        peer.turn_to(Doing.SYNCING, self.swarm.now)
        self.swarm.timeline.change(self.swarm.now, +1)
        self.swarm.queue.at(
            self.swarm.now + self.swarm.timings.join(self.swarm.rng), self.downloads.begin, peer, peer.life
        )

    def _ready(self, peer: SimulatedPeer) -> None:
        self.swarm.compute(peer)
        self.rounds.newcomer(peer)

    def _reload(self, peer: SimulatedPeer, reason: Loss) -> None:
        self._lose(peer, reason)
        if peer.leaving:
            self._depart(peer)
            return
        peer.life += 1
        peer.turn_to(Doing.SYNCING, self.swarm.now)
        self.downloads.begin(peer, peer.life)

    # Going.

    def _kill(self, peer: SimulatedPeer) -> None:
        swarm = self.swarm
        self._vanish(peer)
        if peer.doing in (Doing.COMPUTING, Doing.AVERAGING, Doing.WAITING):
            swarm.ledger.struck(swarm.now)
        self._lose(peer, Loss.KILLED)
        self._end_life(peer, "killed")

    def _leave(self, peer: SimulatedPeer) -> None:
        """Told to go."""
        swarm, now = self.swarm, self.swarm.now
        if peer.doing in (Doing.SYNCING, Doing.FROZEN) or not peer.reachable:
            self._kill(peer)  # it holds nothing that it could hand over
            return
        peer.leaving = True
        swarm.queue.at(now + self.grace, self._grace_is_over, peer, peer.life)
        if self.rounds.takes(peer) or peer.doing is not Doing.COMPUTING:
            return  # goes after the round
        step_in_time = swarm.expected_due() + self.rounds.last_duration <= now + self.grace
        if peer.number in swarm.members and step_in_time:
            swarm.stay_for_step(peer)
            swarm.reschedule()
        else:
            self._hand_over(peer)

    def _grace_is_over(self, peer: SimulatedPeer, life: int) -> None:
        if peer.life != life or not peer.leaving:
            return
        if peer.number in self.swarm.idle and not self.rounds.takes(peer):
            self._hand_over(peer)
        else:
            self._kill(peer)

    def _hand_over(self, peer: SimulatedPeer) -> None:
        swarm = self.swarm
        swarm.drop(peer)
        peer.set_rate(0.0, swarm.now)
        peer.turn_to(Doing.WAITING, swarm.now)
        peer.life += 1  # nothing else happens to it any more, but a kill
        swarm.reschedule()
        seconds = swarm.sizes.gradients * BITS / (peer.traits.bandwidth * BANDWIDTH_EFFICIENCY)
        swarm.queue.at(
            swarm.now + min(self.grace, seconds + swarm.timings.lease_seconds),
            self._handed_over,
            peer,
            peer.life,
        )

    def _handed_over(self, peer: SimulatedPeer, life: int) -> None:
        if peer.life != life:
            return
        swarm = self.swarm
        own, samples = peer.take(swarm.now)
        swarm.ledger.computed += own
        receivers = [other for other in swarm.members.values() if self._can_receive(other, peer)]
        if receivers:
            swarm.give(swarm.rng.choice(receivers), samples)
        else:
            late = peer.state_step < swarm.step
            swarm.ledger.lost[Loss.LATE if late else Loss.NO_RECEIVER] += samples
        self._depart(peer)

    def _can_receive(self, other: SimulatedPeer, peer: SimulatedPeer) -> bool:
        same_step = other.state_step == peer.state_step == self.swarm.step
        return same_step and not other.leaving and not self.rounds.is_in_matchmaking(other)

    def _depart(self, peer: SimulatedPeer) -> None:
        self._lose(peer, Loss.LATE)  # nothing, unless a round failed on it at the very end
        self._end_life(peer, "left")

    # Silence.

    def _freeze(self, peer: SimulatedPeer) -> None:
        if peer.doing is Doing.FROZEN:
            return
        self._vanish(peer)
        peer.life += 1
        peer.set_rate(0.0, self.swarm.now)
        peer.frozen_since = self.swarm.now
        peer.turn_to(Doing.FROZEN, self.swarm.now)
        self.swarm.timeline.change(self.swarm.now, -1)

    def _resume(self, peer: SimulatedPeer) -> None:
        if peer.doing is Doing.FROZEN:
            self.swarm.timeline.change(self.swarm.now, +1)
            self._come_back(peer)

    def _cut(self, peer: SimulatedPeer) -> None:
        """It computes on, for nobody."""
        if peer.doing is Doing.FROZEN or not peer.reachable:
            return
        computing = peer.doing is Doing.COMPUTING
        self._vanish(peer)
        peer.life += 1
        peer.reachable, peer.frozen_since = False, self.swarm.now
        if not computing:
            peer.set_rate(0.0, self.swarm.now)

    def _heal(self, peer: SimulatedPeer) -> None:
        if not peer.reachable:
            peer.reachable = True
            self._come_back(peer)

    def _come_back(self, peer: SimulatedPeer) -> None:
        """After a silence that others may not even have noticed."""
        swarm = self.swarm
        silence, peer.frozen_since = swarm.now - peer.frozen_since, math.inf
        stale = silence > swarm.spec.leases.expiration or peer.state_step < swarm.step
        swarm.forget_ghost(peer)
        peer.life += 1
        if stale or peer.leaving:
            self._reload(peer, Loss.SUSPENDED)
        else:
            peer.set_rate(0.0, swarm.now)
            self._ready(peer)

    # What all of them need.

    def _vanish(self, peer: SimulatedPeer) -> None:
        """Others hear no more of it."""
        swarm = self.swarm
        if peer.reachable and peer.doing in (Doing.COMPUTING, Doing.AVERAGING, Doing.WAITING):
            swarm.leave_ghost(peer)
        swarm.drop(peer)
        self.rounds.gone(peer)
        self.downloads.gone(peer)
        swarm.reschedule()

    def _lose(self, peer: SimulatedPeer, reason: Loss) -> None:
        own, samples = peer.take(self.swarm.now)
        self.swarm.ledger.computed += own
        self.swarm.ledger.lost[reason] += samples

    def _end_life(self, peer: SimulatedPeer, how: str) -> None:
        swarm = self.swarm
        online = peer.doing is not Doing.FROZEN
        swarm.drop(peer)
        self.downloads.gone(peer)
        if how == "left":
            swarm.forget_ghost(peer)
        peer.life += 1
        peer.set_rate(0.0, swarm.now)
        peer.turn_to(Doing.GONE, swarm.now)
        if online:
            swarm.timeline.change(swarm.now, -1)
        swarm.ledger.departures[how] += 1
        swarm.ledger.visits += 1
        swarm.ledger.visits_without_step += not peer.made_a_step
        swarm.reschedule()
