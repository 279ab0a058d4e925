"""One global step of the simulated swarm, as `peer.global_step` makes it: gather, exchange, update, re-average.

A member that dies in the exchange holds the others up for `next_chunk_timeout` and makes the round partial;
re-averaging expects it once more. A round that takes longer than `allreduce_timeout` fails and is tried again; after
the third time every member makes the step alone.
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.simulation.gathering import Gathered, Gathering, Round, Stage, arrival_at
from coordinator.simulation.latecomers import Latecomers
from coordinator.simulation.ledger import Loss
from coordinator.simulation.simulated_peer import Doing, SimulatedPeer
from coordinator.simulation.swarm_model import SimulatedSwarm, slowest

MAX_ATTEMPTS = 3


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
        self.swarm, self.spec = swarm, swarm.spec.averaging
        self.reload, self.depart = reload, depart
        self.round: Round | None = None
        self.last_duration = 0.0
        self._began = 0.0
        self.gathering = Gathering(swarm, self._assembled, self._abandon, self._send_late)
        self.latecomers = Latecomers(swarm, self.gathering, reload, depart, self.newcomer)
        swarm.on_due = self._begin

    # What others tell and ask.

    def newcomer(self, peer: SimulatedPeer) -> None:
        """A peer has become a member while a round may be under way."""
        if self.round is None or self.round.stage is Stage.PARAMETERS:
            return
        if self.round.stage is Stage.GATHERING:
            self.gathering.newcomer(self.round, peer)
        else:
            self._send_late(peer, arrival_at(peer, self.swarm.now + self.swarm.view_lag()))

    def gone(self, peer: SimulatedPeer) -> None:
        """A peer was killed, frozen or cut off: what that means for the round it is in."""
        round_ = self.round
        if round_ is None:
            return
        if round_.stage is Stage.GATHERING and peer in round_.arrivals:
            self.gathering.gone(round_, peer)
        elif peer in round_.group:
            round_.group.remove(peer)
            round_.partial = True
            round_.ends = max(round_.ends, self.swarm.now + self.spec.next_chunk_timeout)
            self._schedule_end(round_)

    def takes(self, peer: SimulatedPeer) -> bool:
        """Whether a round counts on the peer, so that it should not go yet."""
        return self.round is not None and (peer in self.round.arrivals or peer in self.round.group)

    def is_in_matchmaking(self, peer: SimulatedPeer) -> bool:
        """Whether its gradients are already on their way, so that nothing can be added to them."""
        return (
            self.round is not None
            and peer in self.round.arrivals
            and (self.round.arrivals[peer] <= self.swarm.now)
        )

    # From due to made.

    def _begin(self) -> None:
        self.round, self._began, self.swarm.in_round = Round(), self.swarm.now, True
        self.gathering.begin(self.round)

    def _assembled(self, round_: Round, outcome: Gathered) -> None:
        if outcome is Gathered.GROUP:
            self._exchange_gradients(round_)
        elif outcome is Gathered.ALONE:
            self._step_alone(round_)
        else:
            round_.fails = True
            self._schedule_end(round_)

    def _step_alone(self, round_: Round) -> None:
        """A local step at once, or none if only the dead had made it due."""
        (peer,) = round_.group
        if peer.samples(self.swarm.now) < self.swarm.spec.training.target_batch_size:
            self._resume(round_)
            return
        peer.turn_to(Doing.AVERAGING, self.swarm.now)
        round_.group_size = 1
        round_.ends = self.swarm.now + self.swarm.timings.update(self.swarm.sizes.values, 1)
        self._schedule_end(round_)

    def _exchange_gradients(self, round_: Round) -> None:
        swarm, timings = self.swarm, self.swarm.timings
        round_.group_size = len(round_.group) + round_.fallen
        round_.partial = round_.fallen > 0
        seconds = timings.exchange(
            "gradients", round_.group_size, swarm.sizes.gradients, slowest(round_.group), swarm.rng
        )
        if round_.fallen:
            seconds += self.spec.next_chunk_timeout
        if seconds > self.spec.allreduce_timeout:
            round_.fails, seconds = True, self.spec.allreduce_timeout
        for peer in round_.group:
            peer.turn_to(Doing.AVERAGING, swarm.now)
        handshake = timings.handshake(round_.group_size, swarm.rng)
        update = timings.update(swarm.sizes.values, round_.group_size)
        round_.ends = swarm.now + handshake + seconds + update
        self._schedule_end(round_)

    def _schedule_end(self, round_: Round) -> None:
        round_.version += 1
        if round_.group:
            end = self._end_gradients if round_.stage is Stage.GRADIENTS else self._end_parameters
            self.swarm.queue.at(round_.ends, end, round_, round_.version)
        else:
            self._abandon(round_)

    def _end_gradients(self, round_: Round, version: int) -> None:
        if round_.version != version:
            return
        if not round_.fails:
            self._commit(round_)
            return
        self.swarm.ledger.rounds_failed += len(round_.group)
        if round_.attempt + 1 < MAX_ATTEMPTS:
            self.round = Round(attempt=round_.attempt + 1)
            self.gathering.begin_again(self.round, round_.group)
        else:
            self.swarm.ledger.steps_apart += len(round_.group) > 1
            round_.group_size = 1  # each for itself: nothing to re-average together
            self._commit(round_)

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
        if len(round_.group) > 1 and round_.group_size > 1 and swarm.step % self.spec.state_every == 0:
            self._exchange_parameters(round_)
        else:
            self._resume(round_)

    def _exchange_parameters(self, round_: Round) -> None:
        """Re-average; who died in the exchange of gradients was silent there and is not waited for again."""
        swarm = self.swarm
        round_.stage, round_.partial, round_.group_size = Stage.PARAMETERS, False, len(round_.group)
        seconds = swarm.timings.exchange(
            "state", round_.group_size, swarm.sizes.parameters, slowest(round_.group), swarm.rng
        )
        round_.fails = seconds > self.spec.allreduce_timeout
        handshake = swarm.timings.handshake(round_.group_size, swarm.rng)
        round_.ends = swarm.now + handshake + min(seconds, self.spec.allreduce_timeout)
        self._schedule_end(round_)

    def _end_parameters(self, round_: Round, version: int) -> None:
        if round_.version != version:
            return
        if round_.fails:
            self.swarm.ledger.rounds_failed += len(round_.group)
        else:
            self._count(round_)
        self._resume(round_)

    def _count(self, round_: Round) -> None:
        """A round is over: was it whole?"""
        if round_.group_size > 1:
            self.swarm.ledger.rounds += len(round_.group)
            self.swarm.ledger.rounds_partial += round_.partial * len(round_.group)

    def _resume(self, round_: Round) -> None:
        """The members go on computing, or go away."""
        self.last_duration = self.swarm.now - self._began
        self.round = None
        for peer in round_.group:
            if peer.leaving:
                self.depart(peer)
            else:
                self.swarm.compute(peer)
        self._abandon(round_)

    def _abandon(self, round_: Round) -> None:
        """There is no round any more; only now the next step can be due."""
        round_.version += 1
        self.round, self.swarm.in_round = None, False
        self.swarm.reschedule()

    def _send_late(self, peer: SimulatedPeer, arrival: float) -> None:
        self.latecomers.send(peer, arrival)
