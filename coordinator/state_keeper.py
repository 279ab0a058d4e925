"""Keeps the last good state of the run: follows the swarm, refuses what is broken, serves newcomers, signs the head.

The keeper computes no gradients. It copies the state of the furthest peer every `follow_every_steps` steps, and turns
every `every_steps`-th into a checkpoint. When all peers are gone its copy is what the next one continues from.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import torch
from transformers import PreTrainedTokenizerFast

from coordinator.checkpoints import Checkpoint, CheckpointStore
from coordinator.evaluation import HeldoutEvaluator
from swarm.averager import StateUnavailable, SwarmAverager
from swarm.clock import SwarmView
from swarm.dht import RecordBoard
from swarm.records import HeadRecord
from swarm.spec import RunSpec
from swarm.training_state import TrainingState, state_digest

logger = logging.getLogger(__name__)

HEAD_LIFETIME_SECONDS = 3600.0
PROBE_ROWS = 16

# (kind, sentence) of something that happened, for the history
Announce = Callable[[str, str], None]


class StateKeeper:
    """Owns the coordinator's copy of the training state.

    :param candidate: a second state of the same spec; what is downloaded is judged there before it is taken over
    :param announce: told in a sentence when a state is refused
    """

    def __init__(
        self,
        spec: RunSpec,
        state: TrainingState,
        candidate: TrainingState,
        averager: SwarmAverager,
        board: RecordBoard,
        store: CheckpointStore,
        evaluator: HeldoutEvaluator,
        tokenizer: PreTrainedTokenizerFast,
        announce: Announce,
    ):
        self.spec, self.state, self.candidate = spec, state, candidate
        self.averager, self.board, self.store = averager, board, store
        self.evaluator, self.tokenizer, self.announce = evaluator, tokenizer, announce
        self.last_checkpoint: Checkpoint | None = None
        self.finished = False
        self._probe_loss = math.inf
        self._digest = ""
        self._reached = time.time()

    def start(self, resumed: Checkpoint | None) -> None:
        """Take the resumed checkpoint, or make the first one from the seed, as the head of the run."""
        self.last_checkpoint = resumed
        self._probe_loss = self.evaluator.loss(self.state, PROBE_ROWS)
        self._digest = state_digest(*self.state.tensors())
        if resumed is None:
            self.checkpoint(train_loss=None)
        else:
            self._reached = resumed.saved_at
        self.finished = self.state.step >= self.spec.training.total_steps

    def sign_head(self) -> None:
        """Publish the head record: nobody trains below this step."""
        now = time.time()
        self.board.publish(
            HeadRecord(
                run_id=self.spec.run_id,
                issued=now,
                expires=now + HEAD_LIFETIME_SECONDS,
                step=self.state.step,
                reached=self._reached,
                state_digest=self._digest,
                finished=self.finished,
            )
        )

    def follow(self, view: SwarmView, train_loss: float | None) -> Checkpoint | None:
        """Catch up with the swarm if it is far enough ahead; the new checkpoint if one was due."""
        if not self._is_worth_following(view.newest_step):
            return None
        before = self.state.step
        if not any(self._take_from(donor) for donor in self._donors(view)):
            return None
        self.sign_head()
        every = self.spec.checkpoints.every_steps
        done = self.state.step >= self.spec.training.total_steps
        if self.state.step // every == before // every and not done:
            return None
        checkpoint = self.checkpoint(train_loss)
        if done:
            self.finished = True
            self.sign_head()
        return checkpoint

    def checkpoint(self, train_loss: float | None) -> Checkpoint:
        """Evaluate the kept state on the whole held-out set and write it to disk."""
        heldout_loss = self.evaluator.loss(self.state)
        self.last_checkpoint = self.store.write(
            self.state, self.tokenizer, train_loss=train_loss, heldout_loss=heldout_loss
        )
        return self.last_checkpoint

    def _is_worth_following(self, newest_step: int) -> bool:
        spec, step = self.spec.checkpoints, self.state.step
        if newest_step <= step:
            return False
        ahead = newest_step - step >= spec.follow_every_steps
        boundary = newest_step // spec.every_steps > step // spec.every_steps
        return ahead or boundary or newest_step >= self.spec.training.total_steps

    def _donors(self, view: SwarmView) -> list[str]:
        return [
            peer
            for peer in view.donors(self.state.step + 1, self.board.identity.peer_id)
            if peer in view.leases
        ]

    def _take_from(self, donor: str) -> bool:
        timeout = self.spec.averaging.download_timeout
        try:
            step, tensors = self.averager.download_state(donor, shapes=self.state.shapes, timeout=timeout)
        except StateUnavailable as error:
            logger.info("no state from %s: %s", donor, error)
            return False
        if (reason := self._why_refused(step, tensors)) is not None:
            self.announce("refused", f"refused the state of step {step} from {donor}: {reason}")
            return False
        self.state.load(step, tensors)
        self._digest = state_digest(step, tensors)
        self._reached = time.time()
        return True

    def _why_refused(self, step: int, tensors: list[torch.Tensor]) -> str | None:
        """Judge a downloaded state; its shapes and finiteness were checked on receipt."""
        if step <= self.state.step:
            return f"the run is at step {self.state.step} already"
        self.candidate.load(step, tensors)
        loss = self.evaluator.loss(self.candidate, PROBE_ROWS)
        limit = self._probe_loss * self.spec.checkpoints.max_heldout_ratio
        if not math.isfinite(loss) or loss > limit:
            return f"its held-out loss is {loss:.3f}, above the limit of {limit:.3f}"
        self._probe_loss = loss
        return None
