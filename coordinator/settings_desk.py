"""Changes the run's settings while it runs: checks what is asked, chooses the global step, signs and publishes.

The step is far enough ahead that every peer has read the record before it gets there; while nobody computes, a change
holds at once. What was changed is kept in the run directory and outlives the coordinator. Several coordinators may
make changes: each reads the others' records, and the highest version counts.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from coordinator.events import Announce, Event
from coordinator.unreadable import why_unreadable
from swarm.clock import SwarmView
from swarm.dht import RecordBoard
from swarm.errors import BadInput, OperationFailed
from swarm.records import SettingsRecord
from swarm.settings import CHANGEABLE, RunSettings, SettingsBook, SettingsChange, SettingsEntry, SettingsPlan
from swarm.whole_file import write_whole

logger = logging.getLogger(__name__)

RECORD_LIFETIME_SECONDS = 3600.0
# peers read the settings once a lease period; this many periods and seconds let a record reach everyone
SPREAD_PERIODS = 3
SPREAD_SECONDS = 2.0


class NotNow(OperationFailed):
    """The run is not in a state in which this can be done; says which one it is in."""


class SettingsDesk:
    """Makes, keeps and publishes changes; for any thread.

    :param path: file that keeps the newest signed plan
    :param look: the swarm as it is now, and the seconds that a global step takes (0 if not known yet)
    :param announce: told of every change
    :param warrant: of the run's authority, for a coordinator that is not the authority itself
    """

    def __init__(
        self,
        book: SettingsBook,
        board: RecordBoard,
        path: Path,
        look: Callable[[], tuple[SwarmView, float]],
        announce: Announce,
        warrant: str = "",
    ):
        self.book, self.board, self.path, self.look = book, board, path, look
        self.announce, self.warrant = announce, warrant
        self._lock = threading.Lock()

    def load(self) -> None:
        """Take over what was kept on disk; raises `OperationFailed` if the file cannot be read."""
        try:
            record = SettingsRecord.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return
        except (OSError, ValidationError) as error:
            raise OperationFailed(
                f"{self.path} cannot be read ({why_unreadable(error)}): restore it, or delete it to go on with "
                "the settings of the spec"
            ) from None
        self.book.take(record.version, record.issuer, record.entries)

    @staticmethod
    def lay_out(path: Path, run_id: str, plan: SettingsPlan) -> None:
        """Keep the plan of a checkpoint where `load` of a coordinator that begins with it looks."""
        now = time.time()
        record = SettingsRecord(
            run_id=run_id, issued=now, expires=now + RECORD_LIFETIME_SECONDS, **dict(plan)
        )
        _keep(path, record)

    def renew(self) -> None:
        """Take over what other coordinators have changed, and publish the newest plan again."""
        for record in (self.board.read(SettingsRecord) or {}).values():
            if self.book.take(record.version, record.issuer, record.entries):
                self._keep_if_possible(self._newest())
        if self.book.version:
            self.board.publish(self._newest())

    def change(self, changes: Mapping[str, Any]) -> SettingsChange:
        """Change settings named in `CHANGEABLE`; raises `BadInput` or `NotNow`."""
        unknown = sorted(set(changes) - set(CHANGEABLE))
        if unknown:
            raise BadInput(f"{unknown[0]} cannot change while a run goes on: {', '.join(CHANGEABLE)} can")
        if not changes:
            raise BadInput(f"nothing to change was given: give KEY=VALUE, keys are {', '.join(CHANGEABLE)}")
        words = ", ".join(f"{name} {value}" for name, value in changes.items())
        return self._change("settings", f"changed to {words}", dict(changes))

    def pause(self) -> SettingsChange:
        """Let everyone stop computing at one global step and stay; raises `NotNow`."""
        if self._last.paused:
            raise NotNow("the run is paused already, or about to be")
        return self._change("paused", "pauses", {"paused": True})

    def resume(self) -> SettingsChange:
        """Undo `pause`; raises `NotNow`."""
        if not self._last.paused:
            raise NotNow("the run is not paused")
        return self._change("resumed", "goes on", {"paused": False})

    def finish(self) -> SettingsChange:
        """End the run at one of the next global steps; raises `NotNow`."""
        return self._change("finishing", "ends", {}, finish=True)

    @property
    def _last(self) -> RunSettings:
        return self.book.entries[-1].settings

    def _change(self, kind: str, words: str, changes: dict[str, Any], finish: bool = False) -> SettingsChange:
        with self._lock:
            view, step_seconds = self.look()
            now_at, from_step = view.newest_step, self._first_step(view, step_seconds)
            self._require_open(now_at, finish)
            if finish:
                changes = {"finish_at": from_step, "paused": False}
            entries = self._plan(from_step, now_at, changes)
            self._require_possible(entries[-1])
            version, issuer = self.book.version + 1, self.board.identity.peer_id
            record = self._record(version, issuer, entries)
            _keep(self.path, record)
            self.book.take(version, issuer, entries)
        if not self.board.publish(record):
            logger.warning(
                "settings of version %d were not taken by any node yet; publishing again soon", version
            )
        facts = {
            "from_step": from_step,
            "changes": ", ".join(f"{key} = {value}" for key, value in changes.items()),
        }
        self.announce(Event(kind, f"the run {words} from step {from_step} on", data=facts))
        return SettingsChange(version, from_step, entries[-1].settings)

    def _first_step(self, view: SwarmView, step_seconds: float) -> int:
        """The step at which a change made now can hold: soon, but after everyone has heard of it."""
        newest = view.newest_step
        pending = self.book.entries[-1].from_step
        computing = [lease for lease in view.leases.values() if lease.state.contributes]
        if not computing or self.book.at(newest).paused:
            return max(newest, pending) if computing else newest
        spread = SPREAD_PERIODS * self.book.spec.leases.period + SPREAD_SECONDS
        return max(newest + 1 + math.ceil(spread / (step_seconds or 1.0)), pending)

    def _plan(self, from_step: int, now_at: int, changes: dict[str, Any]) -> list[SettingsEntry]:
        try:
            return self.book.plan(from_step, now_at, **changes)
        except ValidationError as error:
            detail = error.errors()[0]
            key = ".".join(str(part) for part in detail["loc"])
            raise BadInput(f"{key} cannot be {detail['input']!r}: {detail['msg']}") from None

    def _require_open(self, now_at: int, finish: bool) -> None:
        if self.book.is_finished_at(now_at):
            raise NotNow(f"the run is finished, at step {now_at}")
        if finish and self._last.finish_at is not None and self._last.finish_at > now_at:
            raise NotNow(f"the run ends at step {self._last.finish_at} already")

    def _require_possible(self, entry: SettingsEntry) -> None:
        settings, warmup = entry.settings, self.book.spec.training.warmup_steps
        if settings.total_steps <= max(entry.from_step, warmup) and settings.finish_at is None:
            raise BadInput(
                f"total_steps cannot be {settings.total_steps}: it must be more than {max(entry.from_step, warmup)}; "
                "to end the run now, use finish"
            )

    def _newest(self) -> SettingsRecord:
        return self._record(self.book.version, self.book.issuer, self.book.entries)

    def _record(self, version: int, issuer: str, entries: Sequence[SettingsEntry]) -> SettingsRecord:
        now = time.time()
        return SettingsRecord(
            run_id=self.board.run_id,
            issued=now,
            expires=now + RECORD_LIFETIME_SECONDS,
            version=version,
            issuer=issuer,
            entries=tuple(entries),
            warrant=self.warrant,
        )

    def _keep_if_possible(self, record: SettingsRecord) -> None:
        """Of another coordinator's change: it keeps it too, so a full disk here must not end the run."""
        try:
            _keep(self.path, record)
        except OperationFailed as error:
            logger.warning("%s", error)


def _keep(path: Path, record: SettingsRecord) -> None:
    try:
        write_whole(path, record.model_dump_json().encode())
    except OSError as error:
        raise OperationFailed(f"the settings could not be kept in {path} ({error.strerror})") from None
