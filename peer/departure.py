"""Leaving politely: what this peer has accumulated goes into the swarm's step, or to another peer; its state stays.

A departing peer computes nothing more. If the swarm's step comes within the grace period, it takes part; if not, it
hands its samples over. If no other peer has its training state, it stays until the coordinator has copied it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch

from data_prep.counted import counted
from peer.accumulator import Accumulator
from peer.grace import Grace
from peer.hand_over import HandOverDesk, HandOverFailed, hand_over
from peer.presence import Presence
from peer.reporting import Reporter
from peer.suspension import SuspensionWatch
from swarm.clock import SwarmView
from swarm.service import ServiceThread
from swarm.spec import RunSpec
from swarm.states import PeerState
from swarm.training_state import TrainingState

# a hand-over and the copying of the state need this much of the grace period
RESERVE_SECONDS = 5.0
LONGEST_LOOK_SECONDS = 0.25
# on a busy machine a look at the DHT misses leases now and then
LOOKS_UNTIL_ALONE = 5
ROUNDS_TO_ALLOW_FOR = 2
# after the last step of a run: how long to stay so that the coordinator can fetch the final state
LINGER_SECONDS = 60.0


class Departure:
    """Ends one peer's part in a run."""

    def __init__(
        self,
        spec: RunSpec,
        state: TrainingState,
        accumulator: Accumulator,
        buffers: Sequence[torch.Tensor],
        presence: Presence,
        desk: HandOverDesk,
        service: ServiceThread,
        suspension: SuspensionWatch,
        grace: Grace,
        reporter: Reporter,
    ):
        self.spec, self.state, self.accumulator, self.buffers = spec, state, accumulator, buffers
        self.presence, self.desk, self.service = presence, desk, service
        self.suspension, self.grace, self.reporter = suspension, grace, reporter

    def leave(self, make_step: Callable[[], None], take_over: Callable[[], None]) -> None:
        """Place samples and state with those who stay, as far as the grace period allows.

        :param make_step: makes the global step that is due, if it can
        :param take_over: adds what others have handed over to us meanwhile
        """
        self.presence.update(departing=True, samples_per_second=0.0)
        self._place_samples(make_step, take_over)
        self.desk.close()
        if self.accumulator.samples:
            samples = counted(self.accumulator.samples, "sample")
            self.reporter.message(f"{samples} lost: nobody could take over")
        self._wait_until_state_is_safe()

    def _place_samples(self, make_step: Callable[[], None], take_over: Callable[[], None]) -> None:
        looks_alone = 0
        while self.grace.remaining > 0:
            take_over()
            step, branch = self.state.step, self.state.branch
            view = self.presence.refresh()
            stale = self.suspension.seconds or view.has_left_behind(step, branch)
            if stale or not self.accumulator.samples:
                return
            if self.state.settings.is_finished_at(step):
                self.accumulator.reset()  # computed while the last step was made
                return
            if view.is_due(step, branch, self.state.settings.at(step).target_batch_size):
                make_step()
            elif self._step_comes_in_time(view):
                self._look_again_soon()
            elif not self._somebody_may_take_over(view):
                looks_alone += 1
                if looks_alone == LOOKS_UNTIL_ALONE:
                    return
                self._look_again_soon()
            elif self._hand_over():
                return
            else:
                self._look_again_soon()

    def _somebody_may_take_over(self, view: SwarmView) -> bool:
        """Whether there is an heir, or a peer that will be one as soon as it has the state."""
        return any(
            peer != self.presence.peer_id
            and not (lease.departing or lease.client_mode or lease.state is PeerState.LEAVING)
            for peer, lease in view.leases.items()
        )

    def _step_comes_in_time(self, view: SwarmView) -> bool:
        target = self.state.settings.at(self.state.step).target_batch_size
        until_due = view.seconds_until_due(self.state.step, self.state.branch, target)
        round_seconds = ROUNDS_TO_ALLOW_FOR * self.presence.activity.round_seconds
        return until_due + round_seconds < self.grace.remaining - RESERVE_SECONDS

    def _hand_over(self) -> bool:
        samples = self.accumulator.samples
        budget = self.grace.remaining
        try:
            heir = hand_over(self.service, self.presence, self.accumulator, self.buffers, seconds=budget)
        except HandOverFailed as error:
            self.accumulator.reset()
            self.reporter.message(f"{counted(samples, 'sample')} may be lost: {error}")
            return True
        if heir is None:
            return False
        self.presence.update(
            samples=0, samples_handed_over=self.presence.activity.samples_handed_over + samples
        )
        self.reporter.handed_over(samples, heir)
        return True

    def _wait_until_state_is_safe(self) -> None:
        """Stay as a donor while nobody else has our state: another peer that stays, or the coordinator."""
        deadline = time.monotonic() + LINGER_SECONDS
        while time.monotonic() < deadline and self.grace.remaining > 0:
            if self._state_is_safe(self.presence.refresh()):
                return
            self._look_again_soon()

    def _state_is_safe(self, view: SwarmView) -> bool:
        step, branch = self.state.step, self.state.branch
        if step == 0 or view.has_left_behind(step, branch):
            return True
        if view.head is not None and view.head.step >= step:
            return True
        finished = self.state.settings.is_finished_at(step)
        staying = [peer for peer in view.members_at(step, branch) if not view.leases[peer].departing]
        return bool(staying) and not finished

    def _look_again_soon(self) -> None:
        time.sleep(min(LONGEST_LOOK_SECONDS, self.spec.leases.period / 4))
