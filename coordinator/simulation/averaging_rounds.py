"""One global step of the simulated swarm, as `peer.global_step` makes it: gather, exchange, update, re-average.

A round starts when everyone whom the first to arrive believed in is there, or when the matchmaking time is over with
those who came. A member that dies in the exchange holds the others up for `next_chunk_timeout` and makes the round
partial; re-averaging expects it once more. Who comes too late finds the step made, and reloads.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

from coordinator.simulation.ledger import Loss
from coordinator.simulation.simulated_peer import Doing, SimulatedPeer
from coordinator.simulation.swarm_model import SimulatedSwarm, slowest

MAX_ATTEMPTS = 3
PARTIAL_ROUNDS_BEFORE_RELOAD = 3
SAME_MOMENT = 1e-6


class Stage(Enum):
    """Where a round is."""

    GATHERING = "gathering"
    GRADIENTS = "gradients"
    PARAMETERS = "parameters"


@dataclass(eq=False)
class Round:
    """A global step in the making.

    :param arrivals: when each member has finished its micro-batch and looks for the group
    :param expected: members that the first to arrive believes in
    :param missing: of them, those who will not come; `fallen`: those who came and died
    :param late: members that are not in the group, by when they arrive
    """

    attempt: int = 0
    stage: Stage = Stage.GATHERING
    arrivals: dict[SimulatedPeer, float] = field(default_factory=dict)
    expected: int = 0
    missing: int = 0
    fallen: int = 0
    group: list[SimulatedPeer] = field(default_factory=list)
    group_size: int = 0
    partial: bool = False
    fails: bool = False
    ends: float = 0.0
    version: int = 0
    late: dict[SimulatedPeer, float] = field(default_factory=dict)


class AveragingRounds:
    """Makes global steps when they are due.

    :param reload: sends a peer to download the state, with what its accumulated samples are lost for
    :param depart: lets a leaving peer go
    """

    def __init__(
        self,
        swarm: SimulatedSwarm,
        reload: Callable[[SimulatedPeer, Loss], None],
        depart: Callable[[SimulatedPeer], None],
    ):
        self.swarm, self.reload, self.depart = swarm, reload, depart
        self.spec = swarm.spec.averaging
        self.round: Round | None = None
        self.last_duration = 0.0
        self._began = 0.0
        swarm.on_due = self._begin

    # What others tell us.

    def newcomer(self, peer: SimulatedPeer) -> None:
        """A peer has become a member while a round may be under way."""
        round_ = self.round
        if round_ is None or round_.stage is Stage.PARAMETERS:
            return
        arrival = peer.micro_batch_end(self.swarm.now + self.swarm.view_lag())
        if round_.stage is Stage.GATHERING:
            round_.arrivals[peer] = arrival
        else:
            self._send_late(round_, peer, arrival)

    def gone(self, peer: SimulatedPeer) -> None:
        """A peer was killed, frozen or cut off: what that means for the round it is in."""
        round_, now = self.round, self.swarm.now
        if round_ is None:
            return
        round_.late.pop(peer, None)
        if peer in round_.arrivals and round_.stage is Stage.GATHERING:
            came = round_.arrivals.pop(peer) <= now
            round_.fallen += came
            round_.missing += not came
            self._plan(round_)
        elif peer in round_.group:
            round_.group.remove(peer)
            round_.partial = True
            round_.ends = max(round_.ends, now + self.spec.next_chunk_timeout)
            self._schedule_end(round_)

    def takes(self, peer: SimulatedPeer) -> bool:
        """Whether a round counts on the peer, so that it should not go yet."""
        round_ = self.round
        return round_ is not None and (peer in round_.arrivals or peer in round_.group)

    # Gathering.

    def _begin(self) -> None:
        swarm, now = self.swarm, self.swarm.now
        self.round, self._began, swarm.in_round = Round(), now, True
        alone = len(swarm.present) + len(swarm.ghosts(now)) == 1
        seen = {peer: now if alone else now + swarm.view_lag() + swarm.view_lag() for peer in swarm.present}
        first = min(self._arrival(peer, t) for peer, t in seen.items())
        for peer, t in seen.items():
            if not alone:
                t = min(t, first + swarm.view_lag())  # sees that somebody averages
            self.round.arrivals[peer] = self._arrival(peer, t)
        self._expect(self.round, first)

    def _arrival(self, peer: SimulatedPeer, t: float) -> float:
        return peer.micro_batch_end(t) if peer.rate > 0 else t

    def _expect(self, round_: Round, first: float) -> None:
        round_.missing = len(self.swarm.ghosts(first))
        round_.expected = len(round_.arrivals) + round_.missing
        self._plan(round_)

    def _plan(self, round_: Round) -> None:
        """Schedule the moment when the group is assembled."""
        if not round_.arrivals:
            return self._abandon(round_)
        deadline = min(round_.arrivals.values()) + self.spec.matchmaking_time
        everyone = max(round_.arrivals.values())
        round_.version += 1
        moment = deadline if round_.missing else min(everyone, deadline)
        return self.swarm.queue.at(moment, self._assemble, round_, round_.version)

    def _abandon(self, round_: Round) -> None:
        """Nobody is left in it."""
        round_.version += 1
        self.round, self.swarm.in_round = None, False
        self.swarm.reschedule()

    def _assemble(self, round_: Round, version: int) -> None:
        if round_.version != version:
            return
        now = self.swarm.now
        there = [peer for peer, arrival in round_.arrivals.items() if arrival <= now + SAME_MOMENT]
        later = {peer: t for peer, t in round_.arrivals.items() if t > now + SAME_MOMENT}
        gives_up = self._gives_up(min(round_.arrivals.values()))
        alone = round_.expected == 1 and len(there) == 1
        enough = len(there) + round_.fallen >= 2
        if not alone and not enough and later and min(later.values()) <= gives_up:
            self.swarm.queue.at(min(later.values()), self._assemble, round_, version)
            return
        round_.stage, round_.group = Stage.GRADIENTS, there
        for peer in there:
            self._enter(peer, round_.arrivals[peer])
        for peer, arrival in later.items():
            self._send_late(round_, peer, arrival)
        if alone:
            self._alone(round_)
        elif enough:
            self._exchange_gradients(round_)
        else:
            round_.fails, round_.ends = True, max(now, gives_up)
            self._schedule_end(round_)

    def _enter(self, peer: SimulatedPeer, arrived: float) -> None:
        """The peer stopped computing when it arrived, and has waited since."""
        self.swarm.drop(peer)
        if peer.doing is Doing.COMPUTING:
            peer.stop_after_micro_batch(arrived)
            peer.turn_to(Doing.WAITING, arrived)

    def _gives_up(self, arrived: float) -> float:
        """When matchmaking fails for somebody whom nobody joins."""
        return arrived + self.spec.matchmaking_time + 2 * self.spec.request_timeout

    # Exchanging.

    def _alone(self, round_: Round) -> None:
        """Nobody else is believed in: a local step at once, or none if only the dead had made it due."""
        (peer,) = round_.group
        if peer.samples(self.swarm.now) < self.swarm.spec.training.target_batch_size:
            self._resume(round_)
            return
        peer.turn_to(Doing.AVERAGING, self.swarm.now)
        round_.group_size = 1
        round_.ends = self.swarm.now + self.swarm.timings.update(self.swarm.sizes.values, 1)
        self._schedule_end(round_)

    def _exchange_gradients(self, round_: Round) -> None:
        swarm, now = self.swarm, self.swarm.now
        round_.group_size = len(round_.group) + round_.fallen
        round_.partial = round_.fallen > 0
        seconds = swarm.timings.exchange(
            "gradients", round_.group_size, swarm.sizes.gradients, slowest(round_.group), swarm.rng
        )
        if round_.fallen:
            seconds += self.spec.next_chunk_timeout
        if seconds > self.spec.allreduce_timeout:
            round_.fails, seconds = True, self.spec.allreduce_timeout
        begins = now + swarm.timings.handshake(round_.group_size, swarm.rng)
        for peer in round_.group:
            peer.turn_to(Doing.AVERAGING, now)
        round_.ends = begins + seconds + swarm.timings.update(swarm.sizes.values, round_.group_size)
        self._schedule_end(round_)

    def _schedule_end(self, round_: Round) -> None:
        if not round_.group:
            return self._abandon(round_)
        round_.version += 1
        end = self._end_gradients if round_.stage is Stage.GRADIENTS else self._end_parameters
        return self.swarm.queue.at(round_.ends, end, round_, round_.version)

    def _end_gradients(self, round_: Round, version: int) -> None:
        if round_.version != version:
            return
        if not round_.fails:
            self._commit(round_)
        elif round_.attempt + 1 >= MAX_ATTEMPTS:
            self._fail(round_)
            self.swarm.ledger.steps_apart += len(round_.group) > 1
            round_.group_size = 1  # each for itself: nothing to re-average together
            self._commit(round_)
        else:
            self._try_again(round_)

    def _fail(self, round_: Round) -> None:
        self.swarm.ledger.rounds_failed += len(round_.group)

    def _try_again(self, round_: Round) -> None:
        """The round failed: once more with whoever is still believed in."""
        self._fail(round_)
        swarm, now = self.swarm, self.swarm.now
        again = Round(attempt=round_.attempt + 1)
        for peer in round_.group:
            peer.turn_to(Doing.WAITING, now)
            again.arrivals[peer] = now
        for peer in swarm.present:
            again.arrivals[peer] = self._arrival(peer, now)
        round_.version += 1
        self.round = again
        again.late = round_.late
        self._expect(again, now)

    def _commit(self, round_: Round) -> None:
        """The global step is made."""
        swarm, now, ledger = self.swarm, self.swarm.now, self.swarm.ledger
        swarm.step += 1
        total = 0
        for peer in round_.group:
            own, samples = peer.take(now)
            ledger.computed += own
            total += samples
            peer.state_step = swarm.step
            if not peer.made_a_step:
                peer.made_a_step = True
                ledger.rejoins.append(now - peer.started)
        ledger.commit(now, total, len(round_.group), round_.partial)
        self._count(round_)
        every = self.spec.state_every
        if round_.group_size > 1 and swarm.step % every == 0:
            self._exchange_parameters(round_)
        else:
            self._resume(round_)

    def _count(self, round_: Round) -> None:
        """A round is over: was it whole?"""
        ledger = self.swarm.ledger
        if round_.group_size > 1:
            ledger.rounds += len(round_.group)
            ledger.rounds_partial += round_.partial * len(round_.group)
        for peer in round_.group:
            peer.partial_in_a_row = peer.partial_in_a_row + 1 if round_.partial else 0

    def _exchange_parameters(self, round_: Round) -> None:
        """Re-average; the group is expected to be as large as it was, so who died in it is waited for."""
        swarm, spec = self.swarm, self.spec
        dead = round_.group_size - len(round_.group)
        round_.stage, round_.partial, round_.group_size = Stage.PARAMETERS, False, len(round_.group)
        if round_.group_size == 1:
            seconds = self._gives_up(0.0)
            self._fail(round_)
        else:
            wait = spec.matchmaking_time if dead else 0.0
            exchange = swarm.timings.exchange(
                "state", round_.group_size, swarm.sizes.parameters, slowest(round_.group), swarm.rng
            )
            if exchange > spec.allreduce_timeout:
                exchange = spec.allreduce_timeout
                self._fail(round_)
            seconds = wait + swarm.timings.handshake(round_.group_size, swarm.rng) + exchange
        round_.ends = swarm.now + seconds
        self._schedule_end(round_)

    def _end_parameters(self, round_: Round, version: int) -> None:
        if round_.version != version:
            return
        self._count(round_)
        self._resume(round_)

    def _resume(self, round_: Round) -> None:
        """The members go on computing, go away, or reload."""
        swarm = self.swarm
        self.last_duration = swarm.now - self._began
        round_.version += 1
        self.round, swarm.in_round = None, False
        for peer in round_.group:
            if peer.leaving:
                self.depart(peer)
            elif peer.partial_in_a_row >= PARTIAL_ROUNDS_BEFORE_RELOAD:
                peer.partial_in_a_row = 0
                self.reload(peer, Loss.RELOADED)
            else:
                swarm.compute(peer)
        swarm.reschedule()

    # Those who come too late.

    def _send_late(self, round_: Round, peer: SimulatedPeer, arrival: float) -> None:
        """It computes on to the end of its micro-batch, outside of the group."""
        self.swarm.drop(peer)
        round_.late[peer] = arrival
        self.swarm.queue.at(arrival, self._arrive_late, peer, peer.life)

    def _arrive_late(self, peer: SimulatedPeer, life: int) -> None:
        if peer.life != life or not peer.reachable or peer.doing is Doing.FROZEN:
            return
        now = self.swarm.now
        if peer.doing is Doing.COMPUTING:
            peer.stop_after_micro_batch(now)
            peer.turn_to(Doing.WAITING, now)
        if peer.state_step < self.swarm.step:
            self.reload(peer, Loss.LATE)
        else:
            self.swarm.queue.at(self._gives_up(now), self._give_up, peer, peer.life)

    def _give_up(self, peer: SimulatedPeer, life: int) -> None:
        """Its own matchmaking found nobody."""
        if peer.life != life or not peer.reachable or peer.doing is not Doing.WAITING:
            return
        self.swarm.ledger.rounds_failed += 1
        if self.round is not None:
            self.round.late.pop(peer, None)
        if peer.state_step < self.swarm.step:
            self.reload(peer, Loss.LATE)
        elif peer.leaving:
            self.depart(peer)
        else:
            self.swarm.compute(peer)
            self.newcomer(peer)
