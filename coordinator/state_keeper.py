"""Keeps the last good state of the run: follows the swarm, refuses what is broken, serves newcomers, signs the head.

The keeper computes nothing. It copies the state of the furthest peers every `follow_every_steps` steps, and turns
every `every_steps`-th into a checkpoint. When all peers are gone its copy is what the next one continues from: so it
copies more often while a single peer, or none that stays, holds the newest state.

What may hang is elsewhere: a state is downloaded in the averager's process, which cancels it after
`averaging.download_timeout`, and judged, evaluated and written in the checkpoint worker's, which is killed after
`checkpoints.timeout`. `follow` waits for both and so belongs in a thread of its own; `sign_head` never waits for it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from coordinator.checkpoint_worker import CheckpointFailed, CheckpointWorker, Verdict
from coordinator.checkpoints import Checkpoint, CheckpointStore, load_checkpoint
from coordinator.donor_order import DonorOrder
from coordinator.events import Announce, Event
from coordinator.last_state import read_last_state
from swarm.averager import SwarmAverager
from swarm.clock import SwarmView, plausible_step
from swarm.dht import RecordBoard
from swarm.records import HeadRecord
from swarm.snapshot import Snapshot
from swarm.state_sharing import StateUnavailable, StateUnfit
from swarm.training_state import TrainingState, state_digest

logger = logging.getLogger(__name__)

HEAD_LIFETIME_SECONDS = 3600.0
# a checkpoint that failed, on a full disk or at the time limit, is tried again after so long
RETRY_SECONDS = 20.0
# a single peer's every step is copied, but for this many times as long as copying takes nothing is copied again
REST_PER_COPYING = 10.0

# what the model card tells of the run so far
RunFacts = Callable[[], Mapping[str, Any]]


class _Head(NamedTuple):
    """What the head record says of the kept state."""

    step: int
    branch: str
    digest: str
    reached: float


class _Refused(Exception):
    """A state that is not taken over; the message says why.

    :param what: it is, in words
    :param facts: for programs
    """

    def __init__(self, what: str, words: str, why: str, **facts: float | str):
        super().__init__(words)
        self.what, self.facts = what, {"why": why, **facts}


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
    last = read_last_state(last_state_path, state.spec.run_id, state.layouts)
    if last is not None and last.step > state.step:
        state.load(last)
        reached = last_state_path.stat().st_mtime
    return Resumed(checkpoint, reached)


class StateKeeper:
    """Owns the coordinator's copy of the training state.

    :param announce: told when a state is refused
    :param run_facts: asked for what a checkpoint's model card tells of the run
    :param warrant: of the run's authority, for a coordinator that is not the authority itself
    """

    def __init__(
        self,
        state: TrainingState,
        averager: SwarmAverager,
        board: RecordBoard,
        worker: CheckpointWorker,
        announce: Announce,
        run_facts: RunFacts = dict,
        warrant: str = "",
    ):
        self.spec, self.state, self.settings = state.spec, state, state.settings
        self.averager, self.board, self.worker = averager, board, worker
        self.announce, self.run_facts, self.warrant = announce, run_facts, warrant
        self.last_checkpoint: Checkpoint | None = None
        self.finished = False
        self._probe_loss = math.inf
        # of the state that the head record tells of; replaced as a whole, for it is signed by another thread
        self._head = _Head(0, "", "", 0.0)
        self._retry_at = 0.0
        self._rest_until = 0.0
        self._order = DonorOrder()
        self._has_state = False

    @property
    def has_state(self) -> bool:
        """Whether we hold a state of this run: a further coordinator has none until it has copied one."""
        return self._has_state

    def start(self, resumed: Resumed) -> None:
        """Make what was resumed, or a first checkpoint from the seed, the head of the run."""
        self.last_checkpoint = resumed.checkpoint
        # the seed is the state of a run that begins, not of one that another coordinator has begun
        self._has_state = not self.warrant or self.state.step > 0
        snapshot = self.state.snapshot()
        self._head = _Head(snapshot.step, snapshot.branch, state_digest(snapshot), resumed.reached)
        self.sign_head()  # peers that wait for it need not wait for the worker, which is still loading its libraries
        verdict = self.worker.judge(snapshot, limit=math.inf, keep=False)
        self._probe_loss = verdict.loss if math.isfinite(verdict.loss) else math.inf
        self.sign_head()
        if self._has_state and self._is_unfinished(resumed.checkpoint):
            self.checkpoint(train_loss=None)
        self._end_if_finished()

    def _is_unfinished(self, checkpoint: Checkpoint | None) -> bool:
        """Whether there is none yet, or one of weights from elsewhere, which nobody could score without the bundle."""
        return checkpoint is None or (checkpoint.heldout_loss is None and checkpoint.step == self.state.step)

    def sign_head(self) -> None:
        """Publish the head record, nobody trains below this step; nothing as long as we know no state of the run."""
        if not self._has_state:
            return
        now, head = time.time(), self._head
        self.board.publish(
            HeadRecord(
                run_id=self.spec.run_id,
                issued=now,
                expires=now + HEAD_LIFETIME_SECONDS,
                step=head.step,
                branch=head.branch,
                reached=head.reached,
                state_digest=head.digest,
                probe_loss=self._probe_loss if math.isfinite(self._probe_loss) else None,
                finished=self.finished,
                warrant=self.warrant,
            )
        )

    def follow(self, view: SwarmView, train_loss: float | None) -> Checkpoint | None:
        """Catch up with the swarm if it is far enough ahead; the new checkpoint if one was due."""
        if self._is_worth_following(view):
            self._catch_up(view)
        checkpoint = None
        if self._is_checkpoint_due() and time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + RETRY_SECONDS  # unless it succeeds
            checkpoint = self.checkpoint(train_loss, view)
            self._retry_at = 0.0
        self._end_if_finished()
        return checkpoint

    def _is_checkpoint_due(self) -> bool:
        """Whether a boundary, or the end of the run, lies after the newest checkpoint."""
        step, newest = self.state.step, self.last_checkpoint.step if self.last_checkpoint is not None else 0
        every = self.settings.at(step).checkpoint_every_steps
        return step > newest and (step // every > newest // every or self.settings.is_finished_at(step))

    def _end_if_finished(self) -> None:
        """The run has ended when its last state is a checkpoint, and no sooner."""
        step, newest = self.state.step, self.last_checkpoint
        is_written = newest is not None and newest.step == step
        if is_written and self.settings.is_finished_at(step) and not self.finished:
            self.finished = True
            self.sign_head()

    def checkpoint_now(self, view: SwarmView, train_loss: float | None) -> Checkpoint:
        """Copy the newest state, if there is a newer one, and make it a checkpoint unless it is one already."""
        if view.newest_step > self.state.step:
            self._catch_up(view)
        if self.last_checkpoint is not None and self.last_checkpoint.step == self.state.step:
            return self.last_checkpoint
        return self.checkpoint(train_loss, view)

    def checkpoint(self, train_loss: float | None, view: SwarmView | None = None) -> Checkpoint:
        """Have the kept state evaluated on the whole held-out set and written to disk; raises `CheckpointFailed`.

        :param view: tells how far the peers have come in the text
        """
        kept = self._kept_besides(view)
        self.last_checkpoint = self.worker.write(self.state.snapshot(), train_loss, self.run_facts(), kept)
        return self.last_checkpoint

    def _kept_besides(self, view: SwarmView | None) -> dict[str, Any]:
        """What of the run is not in its state: what was changed, and, where known, positions in the text in epochs."""
        leases = view.leases.items() if view is not None else ()
        positions = {peer: lease.text_position for peer, lease in leases if lease.text_position}
        changed = self.settings.changed
        settings = {"settings": changed.model_dump(mode="json")} if changed is not None else {}
        begun_with = self.last_checkpoint.begun_with if self.last_checkpoint is not None else None
        begun = {"begun_with": begun_with} if begun_with else {}
        return {**settings, **begun, "text_positions": positions}

    def _catch_up(self, view: SwarmView) -> None:
        started = time.monotonic()
        if any(self._take_from(donors, view) for donors in self._order.groups(self._donors(view), view)):
            self._rest_until = time.monotonic() + REST_PER_COPYING * (time.monotonic() - started)
            self.sign_head()

    def _is_worth_following(self, view: SwarmView) -> bool:
        step, newest = self.state.step, view.newest_step
        if newest <= step:
            return False
        every = self.settings.at(newest).checkpoint_every_steps
        ahead = newest - step >= self.spec.checkpoints.follow_every_steps
        boundary = newest // every > step // every
        finished = self.settings.is_finished_at(newest)
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
        return self._order.willing(peers + [peer for peer in view.coordinators[:1] if head_is_ahead])

    def _take_from(self, donors: Sequence[str], view: SwarmView) -> bool:
        """Take over the state of which each of these donors sends a part."""
        started = time.monotonic()
        try:
            snapshot = self._download(donors)
            verdict = self._judge(snapshot, view)
        except _Refused as refusal:
            self._refuse(donors, refusal, time.monotonic() - started)
        except StateUnavailable as error:
            logger.info("no state from %s: %s", " and ".join(donors), error)
            self._order.set_back(donors, time.monotonic() - started)
        except CheckpointFailed as error:
            self.announce(Event("state_not_judged", str(error), data={"reason": str(error)}))
        else:
            self._order.forgive(donors)
            self._take_over(snapshot, verdict)
            return True
        return False

    def _download(self, donors: Sequence[str]) -> Snapshot:
        timeout = self.spec.averaging.download_timeout
        try:
            snapshot = self.averager.download_state(*donors, layouts=self.state.layouts, timeout=timeout)
            self.state.check(snapshot)
        except (StateUnfit, ValueError) as error:
            raise _Refused("a state", str(error), "unfit", reason=str(error)) from None
        return snapshot

    def _judge(self, snapshot: Snapshot, view: SwarmView) -> Verdict:
        """A good one; raises `_Refused`, or `CheckpointFailed` if nobody can say."""
        step, what = snapshot.step, f"the state of step {snapshot.step}"
        if step <= self.state.step:
            raise _Refused(what, f"the run is at step {self.state.step} already", "behind", step=step)
        head = self._head if self._has_state else view.head
        if head is not None and step > plausible_step(head.step, head.reached, self.spec, time.time()):
            raise _Refused(what, "nobody can be there yet", "ahead", step=step)
        limit = self._probe_loss * self.spec.checkpoints.max_heldout_ratio
        verdict = self.worker.judge(snapshot, limit)
        if verdict.good:
            return verdict
        if math.isnan(verdict.loss):
            raise _Refused(what, "its held-out loss is not finite", "not_finite", step=step)
        reason = f"its held-out loss is {verdict.loss:.3f}, above the limit of {limit:.3f}"
        raise _Refused(what, reason, "loss", step=step, loss=verdict.loss, limit=limit)

    def _take_over(self, snapshot: Snapshot, verdict: Verdict) -> None:
        if verdict.trouble:  # a full disk: the state is kept in memory all the same
            self.announce(Event("state_not_kept", verdict.trouble, data={"reason": verdict.trouble}))
        self.state.load(snapshot)
        self._probe_loss = verdict.loss
        self._head = _Head(snapshot.step, snapshot.branch, verdict.digest, time.time())
        self._has_state = True

    def _refuse(self, donors: Sequence[str], refusal: _Refused, seconds: float) -> None:
        sentence = f"refused {refusal.what} from {' and '.join(donors)}: {refusal}"
        if len(donors) > 1:  # whose part it was shows when they are asked one by one
            logger.warning(sentence)
            self._order.set_back(donors, seconds)
            return
        self._order.shun(donors[0])
        self.announce(Event("refused", sentence, data={"donor": donors[0], **refusal.facts}))
