"""Keeps the last good state of the run: follows the swarm, refuses what is broken, serves newcomers, signs the head.

The keeper computes no gradients. It copies the state of the furthest peer every `follow_every_steps` steps, and turns
every `every_steps`-th into a checkpoint. When all peers are gone its copy is what the next one continues from: so it
copies more often while a single peer, or none that stays, holds the newest state.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from coordinator.checkpoints import Checkpoint, CheckpointStore, load_checkpoint
from coordinator.evaluation import HeldoutEvaluator
from coordinator.last_state import read_last_state, write_last_state
from swarm.averager import StateUnavailable, SwarmAverager
from swarm.clock import SwarmView
from swarm.dht import RecordBoard
from swarm.errors import OperationFailed
from swarm.records import HeadRecord
from swarm.snapshot import Snapshot
from swarm.spec import RunSpec
from swarm.training_state import TrainingState, state_digest

logger = logging.getLogger(__name__)

HEAD_LIFETIME_SECONDS = 3600.0
PROBE_ROWS = 16
# a single peer's every step is copied, but for this many times as long as copying takes nothing is copied again
REST_PER_COPYING = 10.0

# (kind, sentence) of something that happened, for the history
Announce = Callable[[str, str], None]


@dataclass(frozen=True)
class Resumed:
    """Where a coordinator begins.

    :param checkpoint: the newest intact one, if there is any
    :param reached: when the swarm was at the state that was loaded, in seconds since the epoch
    """

    checkpoint: Checkpoint | None
    reached: float


def resume(state: TrainingState, store: CheckpointStore, last_state_path: Path) -> Resumed:
    """Load the newest state on disk: of a checkpoint, or the last that was copied from the swarm after it."""
    checkpoint, reached = store.newest_intact(), time.time()
    if checkpoint is not None:
        load_checkpoint(checkpoint, state)
        reached = checkpoint.saved_at
    last = read_last_state(last_state_path, state.spec.run_id, state.shapes)
    if last is not None and last.step > state.step:
        state.load(last)
        reached = last_state_path.stat().st_mtime
    return Resumed(checkpoint, reached)


class StateKeeper:
    """Owns the coordinator's copy of the training state.

    :param candidate: a second state of the same spec; what is downloaded is judged there before it is taken over
    :param announce: told in a sentence when a state is refused
    :param last_state_path: file in which every copied state is kept, for the next start
    :param warrant: of the run's authority, for a coordinator that is not the authority itself
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
        last_state_path: Path,
        warrant: str = "",
    ):
        self.spec, self.state, self.candidate = spec, state, candidate
        self.averager, self.board, self.store = averager, board, store
        self.evaluator, self.tokenizer, self.announce = evaluator, tokenizer, announce
        self.last_state_path, self.warrant = last_state_path, warrant
        self.last_checkpoint: Checkpoint | None = None
        self.finished = False
        self._probe_loss = math.inf
        self._digest = ""
        self._reached = time.time()
        self._rest_until = 0.0
        self._has_state = False

    def start(self, resumed: Resumed) -> None:
        """Make what was resumed, or a first checkpoint from the seed, the head of the run."""
        self.last_checkpoint, self._reached = resumed.checkpoint, resumed.reached
        # the seed is the state of a run that begins, not of one that another coordinator has begun
        self._has_state = not self.warrant or self.state.step > 0
        self._probe_loss = self.evaluator.loss(self.state, PROBE_ROWS)
        self._digest = state_digest(self.state.snapshot())
        if resumed.checkpoint is None and self._has_state:
            self.checkpoint(train_loss=None)
        self.finished = self.state.step >= self.spec.training.total_steps

    def sign_head(self) -> None:
        """Publish the head record, nobody trains below this step; nothing as long as we know no state of the run."""
        if not self._has_state:
            return
        now = time.time()
        self.board.publish(
            HeadRecord(
                run_id=self.spec.run_id,
                issued=now,
                expires=now + HEAD_LIFETIME_SECONDS,
                step=self.state.step,
                branch=self.state.branch,
                reached=self._reached,
                state_digest=self._digest,
                finished=self.finished,
                warrant=self.warrant,
            )
        )

    def follow(self, view: SwarmView, train_loss: float | None) -> Checkpoint | None:
        """Catch up with the swarm if it is far enough ahead; the new checkpoint if one was due."""
        if not self._is_worth_following(view):
            return None
        before, started = self.state.step, time.monotonic()
        if not any(self._take_from(donor) for donor in self._donors(view)):
            return None
        self._rest_until = time.monotonic() + REST_PER_COPYING * (time.monotonic() - started)
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

    def _is_worth_following(self, view: SwarmView) -> bool:
        spec, step, newest = self.spec.checkpoints, self.state.step, view.newest_step
        if newest <= step:
            return False
        ahead = newest - step >= spec.follow_every_steps
        boundary = newest // spec.every_steps > step // spec.every_steps
        finished = newest >= self.spec.training.total_steps
        return ahead or boundary or finished or not self._has_state or self._is_at_risk(view)

    def _is_at_risk(self, view: SwarmView) -> bool:
        """Whether the newest state may be lost with a single machine, or with peers that are about to go."""
        holders = [view.leases[peer] for peer in self._donors(view) if peer in view.leases]
        staying = [lease for lease in holders if not lease.departing]
        return not staying or (len(staying) == 1 and time.monotonic() >= self._rest_until)

    def _donors(self, view: SwarmView) -> list[str]:
        """Peers that are ahead of us, then the coordinator with the highest head if it is."""
        donors = view.donors(self.state.step + 1, self.board.identity.peer_id)
        peers = [peer for peer in donors if peer in view.leases]
        head_is_ahead = view.head is not None and view.head.step > self.state.step
        return peers + [peer for peer in view.coordinators[:1] if head_is_ahead]

    def _take_from(self, donor: str) -> bool:
        timeout = self.spec.averaging.download_timeout
        try:
            snapshot = self.averager.download_state(donor, shapes=self.state.shapes, timeout=timeout)
        except StateUnavailable as error:
            logger.info("no state from %s: %s", donor, error)
            return False
        if (reason := self._why_refused(snapshot)) is not None:
            self.announce("refused", f"refused the state of step {snapshot.step} from {donor}: {reason}")
            return False
        self.state.load(snapshot)
        self._has_state = True
        self._digest = state_digest(snapshot)
        self._reached = time.time()
        try:
            write_last_state(self.last_state_path, snapshot, self.spec.run_id)
        except OperationFailed as error:  # a full disk: the state is kept in memory all the same
            self.announce("state_not_kept", str(error))
        return True

    def _why_refused(self, snapshot: Snapshot) -> str | None:
        """Judge a downloaded state; its shapes and finiteness were checked on receipt."""
        if snapshot.step <= self.state.step:
            return f"the run is at step {self.state.step} already"
        self.candidate.load(snapshot)
        loss = self.evaluator.loss(self.candidate, PROBE_ROWS)
        limit = self._probe_loss * self.spec.checkpoints.max_heldout_ratio
        if not math.isfinite(loss) or loss > limit:
            return f"its held-out loss is {loss:.3f}, above the limit of {limit:.3f}"
        self._probe_loss = loss
        return None
