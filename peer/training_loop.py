"""The local loop of a peer: micro-batches into the accumulator, a global step whenever the swarm's is due.

A plain loop on purpose: everything a peer does in its life passes through `TrainingLoop.run`.
"""

from __future__ import annotations

import math
import threading
from dataclasses import replace

from data_prep.counted import counted
from peer.accumulator import Accumulator
from peer.departure import Departure
from peer.global_step import GlobalStep, StepReport, StepSeconds
from peer.hand_over import HandOverDesk
from peer.micro_batches import MicroBatches
from peer.node.followers import Followers, NoFollowers, Surroundings
from peer.node.orders import RanksLost
from peer.presence import Presence
from peer.reporting import Reporter
from peer.samples import median_position, reading_speeds
from peer.stepper import stepper_for
from peer.suspension import SuspensionWatch
from peer.synchronization import Synchronizer
from swarm.clock import HEAD_FRESH_SECONDS, SwarmView
from swarm.process_limits import yield_to_others
from swarm.settings import RunSettings
from swarm.spec import RunSpec
from swarm.states import PeerState
from swarm.training_state import TrainingState

MAX_REST_SECONDS = 1.0
FELL_BEHIND = "fell behind"


class TrainingLoop:
    """Trains until the run is finished, `stop_after_steps` steps were made, or `stop` is set; then leaves politely.

    :param stop: set from outside to end after the micro-batch in hand
    :param followers: the other ranks of this node
    """

    def __init__(
        self,
        spec: RunSpec,
        state: TrainingState,
        micro_batches: MicroBatches,
        accumulator: Accumulator,
        global_step: GlobalStep,
        synchronizer: Synchronizer,
        presence: Presence,
        desk: HandOverDesk,
        departure: Departure,
        suspension: SuspensionWatch,
        reporter: Reporter,
        stop: threading.Event,
        followers: Followers | None = None,
    ):
        self.spec, self.state, self.micro_batches = spec, state, micro_batches
        self.samples = micro_batches.samples
        self.accumulator, self.global_step, self.synchronizer = accumulator, global_step, synchronizer
        self.presence, self.desk, self.departure = presence, desk, departure
        self.suspension, self.reporter, self.stop = suspension, reporter, stop
        self.followers = followers or NoFollowers()
        self.stepper = stepper_for(global_step, accumulator)
        self.samples_contributed = 0
        self.steps_made = 0
        self._arrived = False
        self._coordinator_is_silent = False
        self._settings = RunSettings.of(spec)

    def run(self, stop_after_steps: int | None = None) -> str:
        """Train and leave; returns in words why it ended."""
        yield_to_others()
        lost = None
        try:
            reason = self._train(stop_after_steps)
            self.followers.collect(self.accumulator)
            self.followers.end()
            self._end_step(wait=True)
        except RanksLost as error:
            lost, reason = error, str(error)
        self._tell_samples()
        self.reporter.leaving(reason, self.accumulator.samples)
        self.departure.leave(self._make_step, self._take_over)
        if lost is not None:
            raise lost
        return reason

    def _train(self, stop_after_steps: int | None) -> str:
        self._synchronize(force=False)
        self.state.model.train()
        while not self.stop.is_set():
            settings = self._follow_settings()
            if self.state.settings.is_finished_at(self.state.step):
                return "the run is finished"
            if stop_after_steps is not None and self.steps_made >= stop_after_steps:
                return f"made {counted(self.steps_made, 'global step')} as asked"
            self.presence.require_present()
            if not self.stepper.busy and (reason := self._why_reload()) is not None:
                self._reload(reason)
                continue
            if settings.paused:
                self.followers.collect(self.accumulator)
                self._rest()
            else:
                self.followers.train(self.state, self._surroundings)
                self._micro_batch()
            self._take_over()
            if not self.stepper.busy and self._is_due():
                self.followers.collect(self.accumulator)
                self.stepper.begin()
            self._end_step()
        return self.departure.grace.reason

    @property
    def samples_computed(self) -> int:
        """By all ranks, as far as they have told."""
        return self.micro_batches.samples_computed + self.followers.samples_computed

    @property
    def samples_per_second(self) -> float:
        """Of all ranks."""
        if self.followers.ranks > 1 and not self.followers.samples_per_second:  # they have not told yet
            return self.micro_batches.samples_per_second * self.followers.ranks
        return self.micro_batches.samples_per_second + self.followers.samples_per_second

    def _surroundings(self) -> Surroundings:
        """What the other ranks need to know to choose their text."""
        view = self.presence.view
        arrived, self._arrived = self._arrived, False
        return Surroundings(
            median_position(view, self.presence.peer_id), reading_speeds(view), arrived=arrived
        )

    def _follow_settings(self) -> RunSettings:
        """What holds at our step; says so when that has changed."""
        settings = self.state.settings.at(self.state.step)
        if settings != self._settings:
            self._settings = settings
            self.reporter.settings(settings, self.state.step)
        return settings

    def _rest(self) -> None:
        """The run is paused: stay as we are, and look again soon."""
        self.presence.update(samples_per_second=0.0)
        self.stop.wait(min(MAX_REST_SECONDS, self.spec.leases.period / 2))

    def _why_reload(self) -> str | None:
        """Why our state must not be used any further before it was fetched again, or None."""
        if self.suspension.take() > 0:
            return "was suspended"
        if self.global_step.take_broken_cycle():
            return "partial rounds in a row"
        view = self.presence.view
        if view.newest_step > self.state.step:
            return FELL_BEHIND
        if view.has_left_behind(self.state.step, self.state.branch):
            return "trained apart from the swarm"
        return None

    def _reload(self, reason: str) -> None:
        self.reporter.reloading(reason, self.state.step)
        reloads = self.presence.activity.reloads
        self.presence.update(reloads={**reloads, reason: reloads.get(reason, 0) + 1})
        self._synchronize(force=True, reason=reason)

    def _synchronize(self, force: bool, reason: str = "") -> None:
        keeps = self.spec.averaging.overlap and reason == FELL_BEHIND
        if keeps:
            self.followers.collect(self.accumulator)
        step, accumulated = self.state.step, self.accumulator.take() if keeps else None
        self.accumulator.reset()
        self.followers.discard()
        synced = self.synchronizer.synchronize(force=force)
        if synced is None:
            return
        if accumulated is not None and self.state.step <= step + 1:
            # a step came too early for us; gradients may be one step old
            self.accumulator.put_back(accumulated)
        self._arrived = True
        self.samples.join_others(median_position(self.presence.view, self.presence.peer_id), self.state.step)
        samples = self.accumulator.samples
        self.presence.update(state=PeerState.TRAINING, samples=samples, text_position=self.samples.position)
        self.reporter.synced(synced)

    def _take_over(self) -> None:
        """Add what departing peers have sent since the last micro-batch."""
        samples = self.desk.settle(self.accumulator, self.state.step, self.state.branch)
        if samples:
            total = self.presence.activity.samples_taken_over + samples
            self.presence.update(samples_taken_over=total)
            self._tell_samples()
            self.reporter.took_over(samples)

    def _micro_batch(self) -> None:
        self.micro_batches.compute(self.state.step)
        self.presence.update(
            samples_per_second=self.samples_per_second, samples_computed=self.samples_computed
        )
        self._tell_samples()

    def _tell_samples(self) -> None:
        if not self.global_step.is_averaging_gradients:
            self.presence.update(samples=self.accumulator.samples + self.followers.samples)

    def _is_due(self) -> bool:
        step = self.state.step
        target = self.state.settings.at(step).target_batch_size
        return self.presence.view.is_due(step, self.state.branch, target)

    def _make_step(self) -> None:
        """Make the step that is due and wait for it; nothing is computed any more."""
        self.stepper.begin()
        self._end_step(wait=True)

    def _end_step(self, *, wait: bool = False) -> None:
        """Compute with the newest parameters from now on, and tell of the step that was begun, if it is over."""
        was_busy = self.stepper.busy
        report = self.stepper.take_report(wait=wait)
        if self.state.model_is_old:
            # what the ranks have accumulated is of the parameters before
            self.followers.collect(self.accumulator)
            self.state.refresh_model()
        if report is not None:
            self._tell_of(report)
        if was_busy and not self.stepper.busy:
            self.presence.update(
                rounds_partial=self.global_step.rounds_partial, rounds_failed=self.global_step.rounds_failed
            )
            self._tell_samples()
            self._notice_silence(self.presence.view)

    def _tell_of(self, report: StepReport) -> None:
        self.samples.keep_up(median_position(self.presence.view, self.presence.peer_id))
        report = replace(report, seconds=self._divided(report.seconds))
        self.steps_made += 1
        self.samples_contributed += report.samples
        self.presence.update(
            loss=report.loss if report.loss is not None else self.presence.activity.loss,
            samples_contributed=self.samples_contributed,
            round_group=report.group,
            round_received=report.received,
            round_seconds=report.seconds.step,
            text_position=self.samples.position,
        )
        self.reporter.step(report, self._summary(report))

    def _divided(self, seconds: StepSeconds) -> StepSeconds:
        """With what the step does not know of: the wait for text, as the ranks' mean, and the ranks' meetings."""
        reduce, broadcast = self.followers.take_seconds()
        waited = (self.samples.take_wait() + self.followers.waited) / self.followers.ranks
        return replace(seconds, data=waited, reduce=reduce, broadcast=broadcast)

    def _notice_silence(self, view: SwarmView) -> None:
        """Say when no coordinator has renewed its head record for long: it is down, or we are cut off from it."""
        seconds = view.now - view.head.issued if view.head is not None else math.inf
        if (seconds > HEAD_FRESH_SECONDS) == self._coordinator_is_silent:
            return
        self._coordinator_is_silent = not self._coordinator_is_silent
        if self._coordinator_is_silent:
            peers = len(view.members_at(self.state.step, self.state.branch))
            self.reporter.message(
                f"no word from a coordinator for {seconds:.0f} s: going on as {counted(peers, 'peer')}"
            )
        else:
            self.reporter.message("the coordinator is back")

    def _summary(self, report: StepReport) -> str:
        share = report.samples / report.swarm_samples if report.swarm_samples else 0.0
        waited = report.seconds.data / report.seconds.total if report.seconds.total else 0.0
        return (
            f"{self.samples_per_second:.1f} samples/s, {share:.0%} of this step's samples are yours, "
            f"{waited:.1%} of the time waiting for text"
        )
