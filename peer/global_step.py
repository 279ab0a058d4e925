"""One global step: average the accumulated gradients with everyone at the same step, update, re-average parameters.

What can go wrong, and what it costs: a peer that dies in a round costs its own samples; a round that finds nobody is
tried again with whoever is still alive; a peer that is alone steps alone at once. A step is only made from finite
gradients, and only if the swarm has not moved on without us.

With `averaging.overlap` a step is made in a thread of its own while micro-batches go on: it touches the contribution
that it is given, the averager's buffers and the optimizer's parameters, and none of what a micro-batch touches.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from peer.accumulator import Accumulator, Contribution
from peer.presence import Presence
from peer.suspension import SuspensionWatch
from swarm.averager import SwarmAverager
from swarm.rounds import RoundFailed, RoundKind, RoundResult
from swarm.states import PeerState
from swarm.training_state import TrainingState
from swarm.trouble import describe_trouble

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3
PARTIAL_ROUNDS_OF_A_BROKEN_CYCLE = 3
HARDLY_ANYTHING = 0.5
MAX_OFFENDERS_TOLD = 8


@dataclass(frozen=True)
class StepSeconds:
    """How the time of one global step divides, in seconds.

    :param matchmaking: finding the group, and attempts that failed; `allreduce`: exchanging
    :param step: all of the step after it was due: the two above, and the update
    :param averaging: as much of that as nothing was computed in: all of it, unless the run overlaps the two
    :param data: waiting for samples to train on
    :param reduce: on a node, moving the ranks' sums to the leader, the wait for the slowest included
    :param broadcast: on a node, handing the parameters out
    :param total: from the end of our last step to the end of this one
    """

    matchmaking: float
    allreduce: float
    step: float
    averaging: float
    total: float
    data: float = 0.0
    reduce: float = 0.0
    broadcast: float = 0.0

    @property
    def compute(self) -> float:
        return max(0.0, self.total - self.averaging - self.data - self.reduce - self.broadcast)

    def shares(self) -> dict[str, float]:
        """What part of the time since our last step went into what; they add up to 1."""
        parts = {
            "compute": self.compute,
            "data": self.data,
            "reduce": self.reduce,
            "averaging": self.averaging,
            "broadcast": self.broadcast,
        }
        whole = sum(parts.values()) or 1.0
        return {name: seconds / whole for name, seconds in parts.items()}


@dataclass(frozen=True)
class StepReport:
    """What this peer saw of one global step.

    :param global_step: the step that was reached
    :param loss: mean training loss over our own samples of this step, None if we had none
    :param samples: what we put into it; `taken_over`: those of them that departed peers had computed
    :param swarm_samples: what everyone put into it
    :param group: peers that averaged, ourselves included
    :param received: share of the averaged gradient that arrived, 0 to 1
    :param seconds: what the time since our last step went into
    :param trouble: what went wrong since this peer joined, counted; empty if nothing did
    """

    global_step: int
    loss: float | None
    samples: int
    taken_over: int
    swarm_samples: int
    group: int
    received: float
    seconds: StepSeconds
    trouble: str


class GlobalStep:
    """Makes global steps for one peer.

    `is_averaging_gradients`: what the lease says of our samples is about the step that is being made.

    :param buffers: the averager's shared fp32 buffers, one per parameter
    :param accumulator: of what is computed while a step is made, if the run overlaps the two
    """

    def __init__(
        self,
        state: TrainingState,
        accumulator: Accumulator,
        averager: SwarmAverager,
        buffers: Sequence[torch.Tensor],
        presence: Presence,
        suspension: SuspensionWatch,
    ):
        self.state, self.accumulator, self.averager = state, accumulator, averager
        self.buffers, self.presence, self.suspension = buffers, presence, suspension
        self.overlaps = state.spec.averaging.overlap
        self.is_averaging_gradients = False
        self.rounds_partial = 0
        self.rounds_failed = 0
        self._partial_in_a_row = dict.fromkeys(RoundKind, 0)
        self._partial_group: dict[RoundKind, frozenset[str]] = dict.fromkeys(RoundKind, frozenset())
        self._offences: Counter[str] = Counter()
        self._matchmaking = self._allreduce = 0.0
        self._last_end = time.monotonic()

    def make(self, contribution: Contribution) -> StepReport | None:
        """Make the step that is due.

        :returns: None if it was not made: the swarm has moved on, it is no longer due, this process was suspended in
            the middle of it, or the optimizer cannot use the gradient. The contribution is still whole, unless it, or
            what came of it, was not finite.
        """
        started = time.monotonic()
        self._matchmaking = self._allreduce = 0.0
        self.is_averaging_gradients = True
        self.presence.update(state=PeerState.AVERAGING, samples=contribution.samples)
        result = self._average_gradients(contribution)
        if result is None or self.suspension.seconds:
            self.presence.update(state=PeerState.TRAINING)
            self.is_averaging_gradients = False
            return None
        self.state.settled.clear()
        try:
            if not self._apply(contribution, result):
                return None
            remaining = result.group_size - len(result.silent)
            if remaining > 1 and self.state.step % self.state.spec.averaging.state_every == 0:
                self._average_parameters(remaining)
        finally:
            self.state.settled.set()
        self.presence.update(state=PeerState.TRAINING)
        return StepReport(
            global_step=self.state.step,
            loss=contribution.mean_loss,
            samples=contribution.samples,
            taken_over=contribution.taken_over,
            swarm_samples=sum(
                count for peer, count in result.samples_by_peer.items() if peer not in result.silent
            ),
            group=result.group_size,
            received=result.received_fraction,
            seconds=self._divide_time(started),
            trouble=describe_trouble(self.rounds_partial, self.rounds_failed, self.presence.activity.reloads),
        )

    def _apply(self, contribution: Contribution, result: RoundResult) -> bool:
        """Update the parameters; False, with the contribution emptied, if the gradient is beyond what can be used."""
        try:
            self.state.apply_gradients(self.buffers, result.round_id)
        except FloatingPointError as error:
            contribution.discard()
            self._count_failure(f"the gradient of step {self.state.step} cannot be used: {error}")
            self.presence.update(state=PeerState.TRAINING)
            self.is_averaging_gradients = False
            return False
        self._begin_next()
        self.is_averaging_gradients = False
        return True

    def _begin_next(self) -> None:
        """Say that we are at the next step."""
        step, branch = self.state.step, self.state.branch
        if self.overlaps:
            samples = self.accumulator.samples
            self.presence.update(step=step, branch=branch, state=PeerState.TRAINING, samples=samples)
        else:
            # averaging without samples: nobody takes this for the beginning of the next step
            self.presence.update(step=step, branch=branch, samples=0)

    def _divide_time(self, started: float) -> StepSeconds:
        end = time.monotonic()
        step = end - started
        blocked = 0.0 if self.overlaps else step
        seconds = StepSeconds(self._matchmaking, self._allreduce, step, blocked, end - self._last_end)
        self._last_end = end
        return seconds

    def _run_round(
        self,
        kind: RoundKind,
        *,
        group_size: int,
        weight: float,
        samples: int,
        weights: Mapping[str, float],
        most: float,
    ) -> RoundResult:
        started, exchanging = time.monotonic(), 0.0
        try:
            result = self.averager.run_round(
                kind,
                step=self.state.step,
                branch=self.state.branch,
                group_size=group_size,
                weight=weight,
                samples=samples,
                weights=weights,
                most=most,
                grows=kind is RoundKind.GRADIENTS and self.accumulator.grows,
            )
            self._remember_offenders(result)
            exchanging = result.allreduce_seconds
            return result
        finally:
            self._allreduce += exchanging
            self._matchmaking += time.monotonic() - started - exchanging

    def _average_gradients(self, contribution: Contribution) -> RoundResult | None:
        """Fill the buffers with the mean gradient of everyone at our step."""
        step, branch = self.state.step, self.state.branch
        target = self.state.settings.at(step).target_batch_size
        for _attempt in range(MAX_ATTEMPTS):
            view = self.presence.refresh()
            if view.has_left_behind(step, branch):
                return None
            members = view.members_at(step, branch)
            if not contribution.mean_into(self.buffers):
                logger.warning("threw away a gradient that was not finite")
            samples = contribution.samples
            if len(members) == 1:
                return self._alone(samples) if samples >= target else None
            try:
                result = self._run_round(
                    RoundKind.GRADIENTS,
                    group_size=len(members),
                    weight=float(samples),
                    samples=samples,
                    weights=view.weights_at(step, branch, target),
                    most=float(target),
                )
            except RoundFailed as error:
                self._count_failure(f"averaging round of step {step} failed: {error}")
                continue
            if sum(result.samples_by_peer.values()) and self._finite():
                self._count(RoundKind.GRADIENTS, result)
                return result
            self._count_failure(f"averaging round of step {step} gave nothing that can be used")
        # visible to each other, yet no round comes about: go on alone as soon as our own samples suffice
        if self.presence.refresh().has_left_behind(step, branch) or contribution.samples < target:
            return None
        return self._alone(contribution.samples) if contribution.mean_into(self.buffers) else None

    def _average_parameters(self, group_size: int) -> None:
        """Take out the drift that lossy compression and partial rounds leave between peers."""
        self.state.copy_parameters_to(self.buffers)
        try:
            result = self._run_round(
                RoundKind.STATE, group_size=group_size, weight=1.0, samples=0, weights={}, most=1.0
            )
        except RoundFailed as error:
            self._count_failure(f"re-averaging parameters after step {self.state.step} failed: {error}")
            return
        self._count(RoundKind.STATE, result)
        if self._finite() and not self.suspension.seconds:
            self.state.copy_parameters_from(self.buffers)

    def _alone(self, samples: int) -> RoundResult:
        return RoundResult(secrets.token_hex(8), {self.presence.peer_id: samples}, 1.0, 1.0)

    def _remember_offenders(self, result: RoundResult) -> None:
        """Tell the coordinator, in our record, who sent or returned what cannot be used, and in how many rounds."""
        if result.offenders:
            self._offences.update(result.offenders.keys())
            self.presence.update(offences=dict(self._offences.most_common(MAX_OFFENDERS_TOLD)))

    def _count_failure(self, reason: str) -> None:
        self.rounds_failed += 1
        self.presence.update(last_error=reason)
        logger.info(reason)

    def take_broken_cycle(self) -> bool:
        """Whether so many rounds of a kind in a row were partial that peers must be out of phase; then forget it."""
        broken = max(self._partial_in_a_row.values()) >= PARTIAL_ROUNDS_OF_A_BROKEN_CYCLE
        if broken:
            self._partial_in_a_row = dict.fromkeys(RoundKind, 0)
        return broken

    def _count(self, kind: RoundKind, result: RoundResult) -> None:
        """Count partial rounds, and those in a row that nobody's death explains.

        A death makes one round partial for everyone, and the next group is another; in a broken cycle the same
        peers miss each other again and again, or one of them gets hardly anything.
        """
        if result.complete:
            self._partial_in_a_row[kind] = 0
            self._partial_group[kind] = frozenset()
            self.presence.update(last_error="")
            return
        self.rounds_partial += 1
        if result.offenders:
            # fetching the state again would not help against somebody who spoils the rounds
            self._partial_in_a_row[kind] = 0
            return
        members = frozenset(result.samples_by_peer)
        unexplained = members == self._partial_group[kind] or result.received_fraction < HARDLY_ANYTHING
        self._partial_in_a_row[kind] = self._partial_in_a_row[kind] + 1 if unexplained else 1
        self._partial_group[kind] = members

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(buffer).all()) for buffer in self.buffers)
