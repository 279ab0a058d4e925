"""One global step: average the accumulated gradients with everyone at the same step, update, re-average parameters.

What can go wrong, and what it costs: a peer that dies in a round costs its own samples; a round that finds nobody is
tried again with whoever is still alive; a peer that is alone steps alone at once. A step is only made from finite
gradients, and only if the swarm has not moved on without us.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from peer.accumulator import Accumulator
from peer.presence import Presence
from peer.suspension import SuspensionWatch
from swarm.averager import SwarmAverager
from swarm.rounds import RoundFailed, RoundKind, RoundResult
from swarm.states import PeerState
from swarm.training_state import TrainingState

logger = logging.getLogger(__name__)

MAX_ATTEMPTS = 3


@dataclass(frozen=True)
class StepReport:
    """What this peer saw of one global step.

    :param global_step: the step that was reached
    :param loss: mean training loss over our own samples of this step, None if we had none
    :param samples: what we put into it; `taken_over`: those of them that departed peers had computed
    :param swarm_samples: what everyone put into it
    :param group: peers that averaged, ourselves included
    :param received: share of the averaged gradient that arrived, 0 to 1
    :param seconds: time spent averaging and updating
    """

    global_step: int
    loss: float | None
    samples: int
    taken_over: int
    swarm_samples: int
    group: int
    received: float
    seconds: float


class GlobalStep:
    """Makes global steps for one peer.

    :param buffers: the averager's shared fp32 buffers, one per parameter
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
        self.rounds_partial = 0
        self.rounds_failed = 0
        self.partial_in_a_row = 0

    def make(self) -> StepReport | None:
        """Make the step that is due.

        :returns: None if it was not made: the swarm has moved on, it is no longer due, or this process was suspended
            in the middle of it. The accumulated samples are still there in all cases.
        """
        started = time.monotonic()
        self.presence.update(state=PeerState.AVERAGING)
        result = self._average_gradients()
        if result is None or self.suspension.seconds:
            self.presence.update(state=PeerState.TRAINING)
            return None
        loss, samples = self.accumulator.mean_loss, self.accumulator.samples
        taken_over = self.accumulator.samples_taken_over
        self.accumulator.reset()
        self.state.apply_gradients(self.buffers, result.round_id)
        # averaging without samples: nobody takes this for the beginning of the next step
        self.presence.update(step=self.state.step, branch=self.state.branch, samples=0)
        if result.group_size > 1 and self.state.step % self.state.spec.averaging.state_every == 0:
            self._average_parameters(result.group_size)
        self.presence.update(state=PeerState.TRAINING)
        return StepReport(
            global_step=self.state.step,
            loss=loss,
            samples=samples,
            taken_over=taken_over,
            swarm_samples=sum(result.samples_by_peer.values()),
            group=result.group_size,
            received=result.received_fraction,
            seconds=time.monotonic() - started,
        )

    def _average_gradients(self) -> RoundResult | None:
        """Fill the buffers with the mean gradient of everyone at our step."""
        step, branch = self.state.step, self.state.branch
        target = self.state.spec.training.target_batch_size
        for _attempt in range(MAX_ATTEMPTS):
            view = self.presence.refresh()
            if view.has_left_behind(step, branch):
                return None
            members = view.members_at(step, branch)
            if not self.accumulator.mean_into(self.buffers):
                logger.warning("threw away a gradient that was not finite")
            samples = self.accumulator.samples
            if len(members) == 1:
                return self._alone() if samples >= target else None
            try:
                result = self.averager.run_round(
                    RoundKind.GRADIENTS,
                    step=step,
                    branch=branch,
                    group_size=len(members),
                    weight=float(samples),
                    samples=samples,
                )
            except RoundFailed as error:
                self._count_failure(f"averaging round of step {step} failed: {error}")
                continue
            if sum(result.samples_by_peer.values()) and self._finite():
                self._count(result)
                return result
            self._count_failure(f"averaging round of step {step} gave nothing that can be used")
        # visible to each other, yet no round comes about: go on alone rather than stand still
        enough = self.accumulator.samples and self.accumulator.mean_into(self.buffers)
        return self._alone() if enough else None

    def _average_parameters(self, group_size: int) -> None:
        """Take out the drift that lossy compression and partial rounds leave between peers."""
        self.state.copy_parameters_to(self.buffers)
        try:
            result = self.averager.run_round(
                RoundKind.STATE,
                step=self.state.step,
                branch=self.state.branch,
                group_size=group_size,
                weight=1.0,
                samples=0,
            )
        except RoundFailed as error:
            self._count_failure(f"re-averaging parameters after step {self.state.step} failed: {error}")
            return
        self._count(result)
        if self._finite() and not self.suspension.seconds:
            self.state.copy_parameters_from(self.buffers)

    def _alone(self) -> RoundResult:
        return RoundResult(secrets.token_hex(8), {self.presence.peer_id: self.accumulator.samples}, 1.0, 1.0)

    def _count_failure(self, reason: str) -> None:
        self.rounds_failed += 1
        self.presence.update(last_error=reason)
        logger.info(reason)

    def _count(self, result: RoundResult) -> None:
        if result.complete:
            self.partial_in_a_row = 0
            self.presence.update(last_error="")
        else:
            self.rounds_partial += 1
            self.partial_in_a_row += 1

    def _finite(self) -> bool:
        return all(bool(torch.isfinite(buffer).all()) for buffer in self.buffers)
