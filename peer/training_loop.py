"""The local loop of a peer: micro-batches into the accumulator, a global step whenever the swarm's is due.

A hundred lines of plain loop on purpose: everything a peer does in its life passes through `TrainingLoop.run`.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import replace

from model.training_step import autocast
from peer.accumulator import Accumulator
from peer.departure import Departure
from peer.global_step import GlobalStep, StepReport
from peer.hand_over import HandOverDesk
from peer.presence import Presence
from peer.reporting import Reporter
from peer.samples import Samples
from peer.suspension import SuspensionWatch
from peer.synchronization import Synchronizer
from swarm.clock import HEAD_FRESH_SECONDS, SwarmView
from swarm.process_limits import yield_to_others
from swarm.settings import RunSettings
from swarm.spec import RunSpec
from swarm.states import PeerState
from swarm.training_state import TrainingState

SPEED_SMOOTHING = 0.2
MAX_REST_SECONDS = 1.0


class TrainingLoop:
    """Trains until the run is finished, `stop_after_steps` steps were made, or `stop` is set; then leaves politely.

    :param stop: set from outside to end after the micro-batch in hand
    :param precision: of the forward pass
    """

    def __init__(
        self,
        spec: RunSpec,
        state: TrainingState,
        samples: Samples,
        accumulator: Accumulator,
        global_step: GlobalStep,
        synchronizer: Synchronizer,
        presence: Presence,
        desk: HandOverDesk,
        departure: Departure,
        suspension: SuspensionWatch,
        reporter: Reporter,
        stop: threading.Event,
        precision: str = "fp32",
    ):
        self.spec, self.state, self.samples = spec, state, samples
        self.accumulator, self.global_step, self.synchronizer = accumulator, global_step, synchronizer
        self.presence, self.desk, self.departure = presence, desk, departure
        self.suspension, self.reporter, self.stop = suspension, reporter, stop
        self.precision = precision
        self.samples_computed = 0
        self.samples_contributed = 0
        self.steps_made = 0
        self._samples_per_second = 0.0
        self._coordinator_is_silent = False
        self._settings = RunSettings.of(spec)

    def run(self, stop_after_steps: int | None = None) -> str:
        """Train and leave; returns in words why it ended."""
        yield_to_others()
        reason = self._train(stop_after_steps)
        self.reporter.leaving(reason, self.accumulator.samples)
        self.departure.leave(self._make_step, self._take_over)
        return reason

    def _train(self, stop_after_steps: int | None) -> str:
        self._synchronize(force=False)
        self.state.model.train()
        while not self.stop.is_set():
            settings = self._follow_settings()
            if self.state.settings.is_finished_at(self.state.step):
                return "the run is finished"
            if stop_after_steps is not None and self.steps_made >= stop_after_steps:
                return f"made {self.steps_made} global steps as asked"
            self.presence.require_admitted()
            if (reason := self._why_reload()) is not None:
                self._reload(reason)
                continue
            if settings.paused:
                self._rest()
            else:
                self._micro_batch()
            self._take_over()
            if self.presence.view.is_due(self.state.step, self.state.branch, settings.target_batch_size):
                self._make_step()
        return self.departure.grace.reason

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
            return "fell behind"
        if view.has_left_behind(self.state.step, self.state.branch):
            return "trained apart from the swarm"
        return None

    def _reload(self, reason: str) -> None:
        self.reporter.reloading(reason, self.state.step)
        reloads = self.presence.activity.reloads
        self.presence.update(reloads={**reloads, reason: reloads.get(reason, 0) + 1})
        self._synchronize(force=True)

    def _synchronize(self, force: bool) -> None:
        self.accumulator.reset()
        synced = self.synchronizer.synchronize(force=force)
        if synced is None:
            return
        self.samples.join_others(self.presence.view, self.state.step)
        self.presence.update(state=PeerState.TRAINING, samples=0)
        self.reporter.synced(synced)

    def _take_over(self) -> None:
        """Add what departing peers have sent since the last micro-batch."""
        samples = self.desk.settle(self.accumulator, self.state.step, self.state.branch)
        if samples:
            total = self.presence.activity.samples_taken_over + samples
            self.presence.update(samples=self.accumulator.samples, samples_taken_over=total)
            self.reporter.took_over(samples)

    def _micro_batch(self) -> None:
        started = time.monotonic()
        batch = {
            name: tensor.to(self.state.parameters[0].device)
            for name, tensor in self.samples.next_batch(self.state.step).items()
        }
        samples = len(batch["input_ids"])
        with autocast(self.state.parameters[0].device.type, self.precision):
            loss = self.state.model(**batch).loss
        if not self.accumulator.add(loss, samples):
            self.reporter.message("skipped a micro-batch whose loss was not finite")
        self.samples_computed += samples
        self._measure_speed(samples / (time.monotonic() - started))
        self.presence.update(
            samples=self.accumulator.samples,
            samples_per_second=self._samples_per_second,
            samples_computed=self.samples_computed,
        )

    def _measure_speed(self, samples_per_second: float) -> None:
        if self._samples_per_second == 0.0:
            self._samples_per_second = samples_per_second
        self._samples_per_second += SPEED_SMOOTHING * (samples_per_second - self._samples_per_second)

    def _make_step(self) -> None:
        report = self.global_step.make()
        if report is not None:
            self.samples.keep_up(self.presence.view)
            report = replace(report, seconds=replace(report.seconds, data=self.samples.take_wait()))
            self.steps_made += 1
            self.samples_contributed += report.samples
            self.presence.update(
                loss=report.loss if report.loss is not None else self.presence.activity.loss,
                samples_contributed=self.samples_contributed,
                round_group=report.group,
                round_received=report.received,
                round_seconds=report.seconds.averaging,
            )
            self.reporter.step(report, self._summary(report))
        self.presence.update(
            rounds_partial=self.global_step.rounds_partial, rounds_failed=self.global_step.rounds_failed
        )
        self._notice_silence(self.presence.view)

    def _notice_silence(self, view: SwarmView) -> None:
        """Say when no coordinator has renewed its head record for long: it is down, or we are cut off from it."""
        seconds = view.now - view.head.issued if view.head is not None else math.inf
        if (seconds > HEAD_FRESH_SECONDS) == self._coordinator_is_silent:
            return
        self._coordinator_is_silent = not self._coordinator_is_silent
        if self._coordinator_is_silent:
            peers = len(view.members_at(self.state.step, self.state.branch))
            self.reporter.message(
                f"no word from a coordinator for {seconds:.0f} s: going on as {peers} peers"
            )
        else:
            self.reporter.message("the coordinator is back")

    def _summary(self, report: StepReport) -> str:
        share = report.samples / report.swarm_samples if report.swarm_samples else 0.0
        waited = report.seconds.data / report.seconds.total if report.seconds.total else 0.0
        return (
            f"{self._samples_per_second:.1f} samples/s, {share:.0%} of this step's samples are yours, "
            f"{waited:.1%} of the time waiting for text"
        )
