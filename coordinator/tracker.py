"""Turns signed records from the DHT into the status of the run: who is there, how far it is, how fast.

Everything shown is derived from records and the clock; only the running totals of samples outlive a coordinator.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass

from coordinator.lineage import Lineage
from coordinator.status import CheckpointStatus, PeerStatus, RunState, RunStatus
from coordinator.totals import MAX_TOTAL, Counters, Totals
from swarm.clock import SwarmView, make_view
from swarm.dht import RecordBoard
from swarm.records import HeadRecord, Lease, PeerRecord
from swarm.settings import SettingsBook
from swarm.spec import RunSpec
from swarm.states import PeerState

KINDS_OF_DEVICE = ("", "cpu", "cuda", "mps", "xpu")
# how long a lost peer stays in the table
REMEMBER_LOST_SECONDS = 600.0
REMEMBER_LEFT_SECONDS = 10.0
STALLED_AFTER_SECONDS = 60.0
STALLED_AFTER_STEP_TIMES = 5


@dataclass
class _Known:
    """What the tracker remembers of one peer: its last record, and when it last gave a sign of life."""

    record: PeerRecord
    heard: float
    counted: tuple[PeerRecord, Lease | None] | None = None
    """The record and the lease that are in the totals."""


@dataclass(frozen=True)
class LastRound:
    """One averaging round as its members saw it: the largest group, the least received, the longest time."""

    group_size: int
    received_fraction: float
    seconds: float


class Tracker:
    """Polls the DHT and keeps the current `RunStatus` and `SwarmView`.

    >>> tracker = Tracker(board, spec); status = tracker.poll()          # doctest: +SKIP
    """

    def __init__(
        self,
        board: RecordBoard,
        spec: RunSpec,
        totals: Totals,
        started_at: float | None = None,
        settings: SettingsBook | None = None,
    ):
        self.board, self.spec, self.totals = board, spec, totals
        self.settings = settings or SettingsBook(spec)
        self.view = SwarmView(now=time.time())
        self.started_at = started_at or time.time()
        self.checkpoints: list[CheckpointStatus] = []
        self.heldout_loss: float | None = None
        self.join_line = ""
        self.fingerprint = ""
        self.finished = False
        self._leases: dict[str, Lease] = {}
        self._heads: dict[str, HeadRecord] = {}
        self._peers: dict[str, _Known] = {}
        self._lineage = Lineage(out_of_sight=spec.leases.expiration)
        self._apart: list[str] = []
        self._failed: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._last_step = (0, time.time())
        self._step_seconds = 0.0
        self.status = self._make_status(time.time())

    @property
    def records(self) -> dict[str, PeerRecord]:
        """The last record of every peer that is alive."""
        now = time.time()
        return {
            peer: known.record
            for peer, known in list(self._peers.items())
            if (lease := self._leases.get(peer)) is not None and lease.expires > now
        }

    def poll(self) -> RunStatus:
        """Read all records once and derive the status; a silent DHT leaves the old records to expire."""
        ask = self.board.ask
        lease_answer, peer_answer, head_answer = ask(Lease), ask(PeerRecord), ask(HeadRecord)
        leases, peers, heads = lease_answer(), peer_answer(), head_answer()
        self._leases = self._leases if leases is None else leases
        self._heads = self._heads if heads is None else heads
        now = time.time()
        for peer_id, record in (peers or {}).items():
            self._remember(peer_id, record)
        self.view = make_view(self._leases, self._heads, self.spec, now)
        self._forget(now)
        self._measure_step(now)
        self._apart = self._lineage.observe(self.view)
        self.status = self._make_status(now)
        return self.status

    @property
    def step_seconds(self) -> float:
        """How long a global step takes at present; 0 if not known yet."""
        return self._step_seconds

    def last_round(self) -> LastRound | None:
        """The averaging round that led to the newest step, from the records of those who made it."""
        made = [
            known.record
            for known in self._peers.values()
            if known.record.global_step == self.view.newest_step
        ]
        made = [record for record in made if record.round_group]
        if not made:
            return None
        return LastRound(
            group_size=max(record.round_group for record in made),
            received_fraction=min(record.round_received for record in made),
            seconds=max(record.round_seconds for record in made),
        )

    def take_failures(self) -> tuple[int, str | None]:
        """Rounds that have failed since this was asked last, at the peer that saw most of them; and what most said."""
        count = max(self._failed.values(), default=0)
        reason = self._reasons.most_common(1)[0][0] if self._reasons else None
        self._failed.clear()
        self._reasons.clear()
        return count, reason

    def _remember(self, peer_id: str, record: PeerRecord) -> None:
        known = self._peers.setdefault(peer_id, _Known(record, record.issued))
        if (failed := record.rounds_failed - known.record.rounds_failed) > 0:
            self._failed[peer_id] += failed
            self._reasons.update([record.last_error] if record.last_error else [])
        known.record, known.heard = record, max(known.heard, record.issued)
        lease = self._leases.get(peer_id)
        if known.counted is not None and known.counted[0] is record and known.counted[1] is lease:
            return
        known.counted = record, lease
        # leases come more often; an older one may be of the process before
        current = lease is not None and lease.issued >= record.issued
        self.totals.count(
            peer_id,
            Counters(
                computed=max(record.samples_computed, lease.samples_computed if lease and current else 0),
                contributed=record.samples_contributed,
                handed_over=record.samples_handed_over,
                taken_over=record.samples_taken_over,
            ),
        )

    def _forget(self, now: float) -> None:
        for peer_id, lease in self._leases.items():
            if peer_id in self._peers:
                self._peers[peer_id].heard = max(self._peers[peer_id].heard, lease.issued)
        for peer_id, known in list(self._peers.items()):
            left = known.record.state is PeerState.LEAVING
            if now - known.heard > (REMEMBER_LEFT_SECONDS if left else REMEMBER_LOST_SECONDS):
                del self._peers[peer_id]

    def _measure_step(self, now: float) -> None:
        step, since = self._last_step
        if self.view.newest_step > step:
            if step:
                seconds = (now - since) / (self.view.newest_step - step)
                self._step_seconds = (
                    seconds if not self._step_seconds else 0.8 * self._step_seconds + 0.2 * seconds
                )
            self._last_step = (self.view.newest_step, now)

    def _make_status(self, now: float) -> RunStatus:
        peers = [self._peer_status(peer_id, known, now) for peer_id, known in sorted(self._peers.items())]
        online = [peer for peer in peers if peer.state not in ("lost", "leaving")]
        step = self.view.newest_step
        settings = self.settings.at(step)
        state, reason = self._state_of_run(online, now)
        return RunStatus(
            run_id=self.spec.run_id,
            state=state,
            global_step=step,
            target_batch_size=settings.target_batch_size,
            peers_online=len(online),
            samples_per_second=sum(peer.samples_per_second for peer in online),
            samples_total=self.totals.all.contributed,
            goodput=self.totals.all.goodput(pending=self._pending(step)),
            train_loss=_mean_loss(online, step),
            heldout_loss=self.heldout_loss,
            peers=peers,
            checkpoints=self.checkpoints,
            generated_at=now,
            started_at=self.started_at,
            target_steps=settings.last_step,
            samples_accumulated=self._pending(step),
            reason=reason,
            split=bool(self._apart),
            join_line=self.join_line,
            fingerprint=self.fingerprint,
            paused=settings.paused,
            settings_version=self.settings.version,
        )

    def _pending(self, step: int) -> int:
        """Samples accumulated for the step in progress."""
        return min(MAX_TOTAL, self.view.samples_at(step, self.view.leading_branch(step) or ""))

    def _peer_status(self, peer_id: str, known: _Known, now: float) -> PeerStatus:
        record, lease = known.record, self._leases.get(peer_id)
        live = lease is not None and lease.expires > now
        state = lease.state if lease is not None and live else record.state
        if lease is None and now - known.heard < self.spec.leases.expiration:
            state = PeerState.JOINING  # its record came before its first lease
        elif not live and state is not PeerState.LEAVING:
            state = PeerState.LOST
        device, hardware = _kind_and_name(record.device)
        counters = self.totals.by_peer.get(peer_id, Counters())
        working = live and state.contributes
        pending = lease.samples if lease is not None and live else 0
        return PeerStatus(
            peer_id=peer_id,
            name=record.name,
            state=state.value,
            device=device,
            hardware=hardware,
            ranks=record.ranks,
            samples_per_second=record.samples_per_second if working else 0.0,
            samples_contributed=counters.contributed,
            global_step=lease.step if lease is not None else record.global_step,
            loss=record.loss,
            last_seen=max(0.0, now - known.heard),
            client_mode=record.client_mode,
            version=record.version,
            error=record.last_error or None,
            share=counters.contributed / self.totals.all.contributed if self.totals.all.contributed else None,
            samples_accumulated=pending,
            partial_rounds=record.rounds_partial,
            failed_rounds=record.rounds_failed,
            reloads=record.reloads,
            goodput=counters.goodput(pending),
            handed_over=record.samples_handed_over,
            taken_over=record.samples_taken_over,
            devices=record.devices,
        )

    def _state_of_run(self, online: list[PeerStatus], now: float) -> tuple[RunState, str | None]:
        if self.finished:
            return "finished", None
        if self.settings.at(self.view.newest_step).paused:
            self._last_step = (self.view.newest_step, now)
            return "waiting", "paused by the operator"
        if not online:
            return "waiting", "no peer is online; the next one continues from the last state"
        patience = max(STALLED_AFTER_SECONDS, STALLED_AFTER_STEP_TIMES * self._step_seconds)
        if self._step_seconds and now - self._last_step[1] > patience:
            return "stalled", f"no global step for {now - self._last_step[1]:.0f} s"
        if not any(peer.state in ("training", "averaging") for peer in online):
            return "waiting", "peers are joining"
        return "training", None


def _kind_and_name(device: str) -> tuple[str, str]:
    """What a peer record says of a device, taken apart: of a GPU it has the name, of anything else the kind.

    >>> _kind_and_name("cpu"), _kind_and_name("Tesla T4")
    (('cpu', ''), ('cuda', 'Tesla T4'))
    """
    return (device, "") if device.split(":")[0] in KINDS_OF_DEVICE else ("cuda", device)


def _mean_loss(online: list[PeerStatus], step: int) -> float | None:
    """Mean of the last losses of the peers that are not behind, weighted by their speed."""
    current = [peer for peer in online if peer.loss is not None and peer.global_step >= step - 1]
    weight = sum(peer.samples_per_second or 1.0 for peer in current)
    return (
        sum((peer.loss or 0.0) * (peer.samples_per_second or 1.0) for peer in current) / weight
        if current
        else None
    )
