"""Keeps a peer present in the swarm: a thread renews its lease and record, and watches everyone else's.

The training loop says what it is doing (`update`) and looks at the last picture (`view`); both cost nothing.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from swarm.clock import HEAD_FRESH_SECONDS, SwarmView, make_view
from swarm.credentials import TicketRenewal
from swarm.dht import CALL_TIMEOUT_SECONDS, RecordBoard
from swarm.errors import OperationFailed
from swarm.introductions import addresses_to_publish
from swarm.records import (
    MAX_LOSS,
    MAX_MEASURE,
    MAX_SPEED,
    DeviceReading,
    EvictionsRecord,
    HeadRecord,
    Lease,
    PeerRecord,
    SettingsRecord,
)
from swarm.settings import SettingsBook
from swarm.spec import RunSpec
from swarm.states import PeerState

logger = logging.getLogger(__name__)

LEASE_RENEWALS_PER_PEER_RECORD = 4
VIEW_REFRESHES_PER_LEASE = 4
SHORTEST_LOOK_SECONDS = 0.1
# of the time, at most, for looking more often than that
LOOKING_SHARE = 0.1
CONTACT_RENEWAL_SECONDS = 5.0
# a silent DHT must not eat up a departing peer's grace period
WITHDRAWAL_SECONDS = 0.6
# one look that fails costs nothing; when none has gone well for so long, the peer ends and says why
FAILING_SECONDS = 60.0


@dataclass(frozen=True)
class Activity:
    """What a peer is doing right now, as told by its training loop."""

    state: PeerState = PeerState.JOINING
    step: int = 0
    branch: str = ""
    departing: bool = False
    samples: int = 0
    samples_per_second: float = 0.0
    samples_contributed: int = 0
    samples_computed: int = 0
    loss: float | None = None
    round_group: int = 0
    round_received: float = 1.0
    round_seconds: float = 0.0
    rounds_partial: int = 0
    rounds_failed: int = 0
    samples_handed_over: int = 0
    samples_taken_over: int = 0
    text_position: float = 0.0
    reloads: Mapping[str, int] = field(default_factory=dict)
    offences: Mapping[str, int] = field(default_factory=dict)
    last_error: str = ""


@dataclass(frozen=True)
class Description:
    """What a peer is; does not change while it runs."""

    name: str
    version: str
    device: str
    ranks: int = 1
    client_mode: bool = False


class Presence:
    """Publishes our signs of life, keeps a current `SwarmView`, and the run's settings up to date.

    >>> presence = Presence(board, spec, Description("otter-17", "0.1.0", "cpu"))      # doctest: +SKIP
    >>> presence.start(); presence.update(state=PeerState.TRAINING, step=7)             # doctest: +SKIP
    """

    def __init__(
        self,
        board: RecordBoard,
        spec: RunSpec,
        description: Description,
        settings: SettingsBook | None = None,
        renewal: TicketRenewal | None = None,
        read_devices: Callable[[], tuple[DeviceReading, ...]] = tuple,
    ):
        self.board, self.spec, self.description = board, spec, description
        self.settings = settings or SettingsBook(spec)
        self._renewal = renewal
        self._read_devices = read_devices
        self.peer_id = board.identity.peer_id
        self.activity = Activity()
        self._heads: dict[str, HeadRecord] = {}
        self._leases: dict[str, Lease] = {}
        self._addresses = () if description.client_mode else addresses_to_publish(board.dht)
        self._disregarded: dict[str, float] = {}
        self._look_took = 0.0
        # since when no look has gone well, and what went wrong first
        self._failing: tuple[float, Exception] | None = None
        self._look_failed = False
        self._renewals, self._told = 0, -1
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="presence", daemon=True)

    @property
    def view(self) -> SwarmView:
        """The swarm as of a moment ago, with our own activity as of now."""
        return self._make_view()

    def require_present(self) -> None:
        """Raise `OperationFailed` if our admission to the run has been ended, or we cannot follow the swarm."""
        evicted = self.peer_id in self.board.admission.evicted
        refusal = self._renewal.refusal if self._renewal is not None else ""
        if evicted or refusal:
            reason = refusal or "a coordinator of the run has evicted this peer"
            raise OperationFailed(f"{reason}: ask the run's operator")
        since, error = self._failing or (math.inf, None)
        if time.monotonic() - since > FAILING_SECONDS:
            raise OperationFailed(
                f"this peer has not been able to follow the swarm for {FAILING_SECONDS:.0f} s ({error!r}): join "
                "again, with --debug to see where it fails"
            ) from error

    def start(self) -> None:
        """Publish ourselves, look around once, and go on doing both in the background."""
        self.refresh()
        self._read_settings()
        self._publish(with_record=True)
        self._thread.start()

    def update(self, **changes: object) -> None:
        """Say what changed; a new state, step or branch is published at once."""
        with self._lock:
            before, self.activity = self.activity, replace(self.activity, **changes)  # type: ignore[arg-type]
        if _worth_telling(before) != _worth_telling(self.activity):
            self._wake.set()

    def refresh(self) -> SwarmView:
        """Read leases and heads from the DHT now; on a silent DHT the old ones stay until they expire."""
        started = time.monotonic()
        lease_answer, head_answer = self.board.ask(Lease), self.board.ask(HeadRecord)
        leases, heads = lease_answer(), head_answer()
        self._look_took = time.monotonic() - started
        with self._lock:
            self._leases = self._leases if leases is None else leases
            self._heads = self._heads if heads is None else heads
        return self._make_view()

    def disregard(self, peer_id: str, seconds: float) -> None:
        """See the swarm without this peer for a while."""
        with self._lock:
            self._disregarded[peer_id] = time.monotonic() + seconds

    def withdraw(self) -> None:
        """Tell everyone that we are gone; the last thing a peer says."""
        self._stopped.set()
        self._wake.set()
        self._thread.join(timeout=WITHDRAWAL_SECONDS)
        self.update(state=PeerState.LEAVING, samples=0)
        self._publish(with_record=True, timeout=WITHDRAWAL_SECONDS)

    def _run(self) -> None:
        next_lease = next_contact = next_settings = 0.0
        while not self._stopped.is_set():
            # each for itself: whatever fails, the lease is renewed, for a peer without one is alone
            self._look_failed, near = False, False
            pause = self.spec.leases.period / VIEW_REFRESHES_PER_LEASE
            with self._going_on():
                pause = self._seconds_to_next_look()
            if woken := self._wake.wait(pause):
                self._wake.clear()
            with self._going_on():
                near = self._has_news_for_a_near_step()
            if woken or near or time.monotonic() >= next_lease:
                with self._going_on():
                    self._renew(at_once=woken)
                next_lease = time.monotonic() + self.spec.leases.period
            if time.monotonic() >= next_settings:
                with self._going_on():
                    self._read_settings()
                    self._attend_to_admission()
                next_settings = time.monotonic() + self.spec.leases.period
            if time.monotonic() >= next_contact:
                with self._going_on():
                    self.board.renew_contacts()
                next_contact = time.monotonic() + CONTACT_RENEWAL_SECONDS
            with self._going_on():
                self.refresh()
            if not self._look_failed:
                self._failing = None

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        """Whatever fails is logged and tried again; `require_present` ends the peer if that does not help."""
        try:
            yield
        except Exception as error:
            logger.warning("following the swarm failed (%r) and is tried again; --debug shows where", error)
            logger.debug("it failed here", exc_info=True)
            self._look_failed = True
            self._failing = self._failing or (time.monotonic(), error)

    def _has_news_for_a_near_step(self) -> bool:
        """Whether everyone should hear our samples now, because the step is about to be due."""
        activity = self.activity
        if activity.samples == self._told:
            return False
        target = self.settings.at(activity.step).target_batch_size
        return self.view.is_near(activity.step, activity.branch, target)

    def _renew(self, at_once: bool) -> None:
        self._renewals, self._told = self._renewals + 1, self.activity.samples
        self._publish(with_record=at_once or self._renewals % LEASE_RENEWALS_PER_PEER_RECORD == 0)

    def _seconds_to_next_look(self) -> float:
        """Seldom while the step is far, often when it is near: so that all begin it together."""
        activity, longest = self.activity, self.spec.leases.period / VIEW_REFRESHES_PER_LEASE
        target = self.settings.at(activity.step).target_batch_size
        until_due = self.view.seconds_until_due(activity.step, activity.branch, target)
        return min(longest, max(SHORTEST_LOOK_SECONDS, self._look_took / LOOKING_SHARE, until_due / 2))

    def _read_settings(self) -> None:
        for record in (self.board.read(SettingsRecord) or {}).values():
            self.settings.take(record.version, record.issuer, record.entries)

    def _attend_to_admission(self) -> None:
        for coordinator, record in (self.board.read(EvictionsRecord) or {}).items():
            self.board.admission.take_evictions(coordinator, record.issued, record.peers)
        if self._renewal is None:
            return
        view = self.view
        silent = view.head is None or view.now - view.head.issued > HEAD_FRESH_SECONDS
        coordinators = [*view.coordinators, *self.board.contacts]
        ticket = self._renewal.attend(coordinators, coordinators_are_silent=silent)
        if ticket is not None:
            self.board.dht.renew_ticket(ticket)

    def _publish(self, with_record: bool, timeout: float = CALL_TIMEOUT_SECONDS) -> None:
        self.board.publish(self._lease(), timeout)
        if with_record:
            self.board.publish(self._peer_record(), timeout)

    def _lease(self) -> Lease:
        now, activity = time.time(), _publishable(self.activity)
        return Lease(
            run_id=self.board.run_id,
            issued=now,
            expires=now + self.spec.leases.expiration,
            state=activity.state,
            step=activity.step,
            samples=activity.samples,
            samples_computed=activity.samples_computed,
            samples_per_second=activity.samples_per_second,
            client_mode=self.description.client_mode,
            branch=activity.branch,
            departing=activity.departing,
            addresses=self._addresses,
            text_position=activity.text_position,
            ticket=self.board.admission.own_ticket,
        )

    def _peer_record(self) -> PeerRecord:
        now, activity, what = time.time(), _publishable(self.activity), self.description
        return PeerRecord(
            run_id=self.board.run_id,
            issued=now,
            expires=now + self.spec.leases.expiration * LEASE_RENEWALS_PER_PEER_RECORD,
            name=what.name,
            version=what.version,
            state=activity.state,
            device=what.device,
            ranks=what.ranks,
            client_mode=what.client_mode,
            global_step=activity.step,
            samples_per_second=activity.samples_per_second,
            samples_contributed=activity.samples_contributed,
            samples_computed=activity.samples_computed,
            loss=activity.loss,
            round_group=activity.round_group,
            round_received=activity.round_received,
            round_seconds=activity.round_seconds,
            rounds_partial=activity.rounds_partial,
            rounds_failed=activity.rounds_failed,
            samples_handed_over=activity.samples_handed_over,
            samples_taken_over=activity.samples_taken_over,
            reloads=dict(activity.reloads),
            last_error=activity.last_error[:200],
            offences=dict(activity.offences),
            ticket=self.board.admission.own_ticket,
            devices=self._read_devices(),
        )

    def _make_view(self) -> SwarmView:
        with self._lock:
            now = time.monotonic()
            self._disregarded = {peer: until for peer, until in self._disregarded.items() if until > now}
            leases = {peer: lease for peer, lease in self._leases.items() if peer not in self._disregarded}
            return make_view({**leases, self.peer_id: self._lease()}, self._heads, self.spec, time.time())


def _worth_telling(activity: Activity) -> tuple[object, ...]:
    """What others must hear of at once when it changes."""
    return activity.state, activity.step, activity.branch, activity.departing


def _publishable(activity: Activity) -> Activity:
    """As near to what is as a record may say: a peer whose training has gone wrong must not fall silent for it."""
    return replace(
        activity,
        samples_per_second=min(activity.samples_per_second, MAX_SPEED),
        loss=None if activity.loss is None else min(activity.loss, MAX_LOSS),
        round_seconds=min(activity.round_seconds, MAX_MEASURE),
        text_position=min(activity.text_position, MAX_MEASURE),
    )
