"""Getting the swarm's current state before taking part, and again whenever this peer has fallen behind.

A peer never trains below the head record and never starts a run over because nobody answered: only at step 0 are the
spec's seed and its weights the state. Donors are those whose signed leases are furthest, then the coordinators. What
they send is looked at before it is used: a coordinator's state must have the digest that it signed, anybody's must
predict held-out words about as well as the coordinator's last one did. Else the next donor is asked.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from peer.presence import Presence
from swarm.averager import SwarmAverager
from swarm.clock import SwarmView, plausible_step
from swarm.evaluation import HeldoutEvaluator
from swarm.records import HeadRecord
from swarm.snapshot import Snapshot
from swarm.state_sharing import StateBusy, StateUnavailable, StateUnfit
from swarm.states import PeerState
from swarm.training_state import TrainingState, state_digest

logger = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
SHUN_SECONDS = 60.0
# so many times a peer may fail to hand out the step that it claims to be at, before that is believed no more
MAX_UNPROVEN = 2
# every further time for twice as long, up to an hour
MAX_DOUBLINGS = 6
# so often we come again to donors that serve others, a second apart, rather than take an older state
MAX_WAITS = 120
STALLED_AFTER_ATTEMPTS = 5


@dataclass(frozen=True)
class Synced:
    """Where a state came from: a donor's peer id, or None for our own."""

    global_step: int
    donor: str | None
    seconds: float


class Synchronizer:
    """Brings a `TrainingState` up to the swarm's step."""

    def __init__(
        self,
        state: TrainingState,
        averager: SwarmAverager,
        presence: Presence,
        stop: threading.Event,
        evaluator: HeldoutEvaluator | None = None,
    ):
        self.state, self.averager, self.presence, self.stop = state, averager, presence, stop
        self.evaluator = evaluator
        self._shunned: dict[str, float] = {}
        self._unproven: Counter[str] = Counter()
        self._waits = 0
        # until a first state was verified ours is only a seed, good for step 0
        self.trusted_own_state = False

    def synchronize(self, *, force: bool = False) -> Synced | None:
        """Block until our state is the swarm's; None if told to stop first.

        :param force: fetch a state even if ours has the right step, because ours may have drifted
        """
        started, attempt = time.monotonic(), 0
        self.presence.update(state=PeerState.SYNCING, step=self.state.step, samples=0)
        while not self.stop.is_set():
            self.presence.require_present()
            donor = self._try_once(self.presence.refresh(), force)
            if donor is not _NO_DONOR:
                self.trusted_own_state = True
                self.presence.update(step=self.state.step, branch=self.state.branch, last_error="")
                return Synced(self.state.step, donor, time.monotonic() - started)
            attempt += 1
            if attempt >= STALLED_AFTER_ATTEMPTS:
                self.presence.update(state=PeerState.STALLED, last_error="nobody offers the current state")
            self.stop.wait(RETRY_SECONDS)
        return None

    def _try_once(self, view: SwarmView, force: bool) -> str | None:
        if view.head is None:
            logger.info("no head record yet: is the coordinator running?")
            return _NO_DONOR
        others_at = [
            view.leases[peer].step
            for peer in view.donors(view.head.step, self.presence.peer_id)
            if peer in view.leases
        ]
        current = max([view.head.step, *others_at])
        left_behind = view.has_left_behind(self.state.step, self.state.branch)
        if not left_behind and self._own_state_serves(current, force and bool(others_at)):
            return None
        # never back: while those who were ahead may have died with their step, ours is the swarm's
        min_step = max(view.head.step, self.state.step if self.trusted_own_state else 0)
        donors = [
            donor
            for donor in view.donors(view.head.step, exclude=self.presence.peer_id)
            if self._shunned.get(donor, 0.0) < time.monotonic()
        ]
        together = view.fellows(donors) if donors else []
        busy = False
        for asked in ([together] if len(together) > 1 else []) + [[donor] for donor in donors]:
            if busy and self._waits < MAX_WAITS and _claimed(asked[0], view) < _claimed(donors[0], view):
                self._waits += 1
                return _NO_DONOR
            try:
                loaded = self._load_from(asked, min_step, view)
            except StateBusy:
                busy, loaded = True, False
            if loaded:
                self._waits = 0
                self._doubt(view)
                return asked[0]
        return _NO_DONOR

    def _doubt(self, view: SwarmView) -> None:
        """Of those who claim a later step than the one that we got, believe no more whom it happens to repeatedly.

        Whoever claims a step without having its state would otherwise hold everybody up: nobody goes on before that
        step is fetched. They may be honest and out of reach for us; then we go on without them for a while.
        """
        claims = [
            peer
            for peer, lease in view.leases.items()
            if lease.state.contributes and lease.step > self.state.step
        ]
        self._unproven = Counter({peer: self._unproven[peer] + 1 for peer in claims})
        for peer in claims:
            times = self._unproven[peer] - MAX_UNPROVEN
            if times >= 0:
                logger.warning("%s claims a step that it does not hand out", peer)
                self.presence.disregard(peer, SHUN_SECONDS * 2 ** min(times, MAX_DOUBLINGS))

    def _own_state_serves(self, current: int, force: bool) -> bool:
        if current == 0:
            return True
        return self.trusted_own_state and not force and self.state.step >= current

    def _load_from(self, donors: Sequence[str], min_step: int, view: SwarmView) -> bool:
        """Take over the state of which the donors have sent pieces; raises `StateBusy`."""
        timeout, asked = self.state.spec.averaging.download_timeout, " and ".join(donors)
        try:
            snapshot = self.averager.download_state(*donors, layouts=self.state.layouts, timeout=timeout)
        except StateBusy:
            logger.info("%s serves others", asked)
            raise
        except StateUnavailable as error:
            logger.info("no state from %s: %s", asked, error)
            if isinstance(error, StateUnfit) and len(donors) == 1:
                self._shunned[donors[0]] = time.monotonic() + SHUN_SECONDS
            return False
        if snapshot.step < min_step:
            logger.info("state of %s is at step %d, below %d", asked, snapshot.step, min_step)
            return False
        before = self.state.snapshot()
        if reason := self._why_unbelievable(donors[0], snapshot, view.head):
            self.state.load(before)
            if len(donors) == 1:  # of several nobody knows which one it was: each is asked by itself then
                self._shunned[donors[0]] = time.monotonic() + SHUN_SECONDS
            logger.warning("refused the state of %s: %s", asked, reason)
            self.presence.update(last_error=f"refused the state of {asked}: {reason}")
            return False
        return True

    def _why_unbelievable(self, donor: str, snapshot: Snapshot, head: HeadRecord | None) -> str:
        """Load a state and say what is wrong with it; empty if nothing is."""
        spec, now = self.state.spec, self.presence.view.now
        if head is not None and snapshot.step > plausible_step(head.step, head.reached, spec, now):
            return f"nobody can be at step {snapshot.step} yet"
        try:
            self.state.load(snapshot)
        except ValueError as error:
            return str(error)
        if head is None:
            return ""
        is_the_head = donor in self.presence.view.coordinators[:1] and snapshot.step == head.step
        if is_the_head and snapshot.branch == head.branch and state_digest(snapshot) != head.state_digest:
            return "it is not the one that the coordinator has signed"
        if self.evaluator is None or head.probe_loss is None:
            return ""
        limit = head.probe_loss * spec.checkpoints.max_heldout_ratio
        loss = self.evaluator.probe(self.state)
        if loss <= limit:
            return ""
        return f"its held-out loss is {loss:.3f}, above the limit of {limit:.3f}"


def _claimed(donor: str, view: SwarmView) -> int:
    """The step that a donor says it is at; a coordinator is asked last, whatever it has."""
    return view.leases[donor].step if donor in view.leases else -1


_NO_DONOR = ""
