"""The few settings of a run that may change while it runs: their values, and from which global step they hold.

A run starts with the values of its spec. A change is an entry with a first global step in a plan that a coordinator
signs (`SettingsRecord`) and every participant keeps in a `SettingsBook`; since everybody looks values up by the global
step they are at, all take a change over at the same step. Only entries may be added, so what held at a step that is
made never changes.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from swarm.spec import RunSpec

MAX_ENTRIES = 8
# what an operator may set by value
CHANGEABLE = ("target_batch_size", "total_steps", "learning_rate_scale", "checkpoint_every_steps")
Step = Annotated[int, Field(ge=0, lt=2**53)]
PositiveStep = Annotated[int, Field(ge=1, lt=2**53)]


class RunSettings(BaseModel):
    """What holds at one global step.

    :param learning_rate_scale: multiplies the spec's schedule
    :param paused: nobody computes; peers stay and keep the state
    :param finish_at: the run ends at this step although `total_steps` is not reached; the schedule does not change
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    target_batch_size: Annotated[int, Field(ge=1, lt=2**31)]
    total_steps: PositiveStep
    checkpoint_every_steps: PositiveStep
    learning_rate_scale: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 1.0
    paused: bool = False
    finish_at: Step | None = None

    @classmethod
    def of(cls, spec: RunSpec) -> RunSettings:
        """What the spec says."""
        return cls(
            target_batch_size=spec.training.target_batch_size,
            total_steps=spec.training.total_steps,
            checkpoint_every_steps=spec.checkpoints.every_steps,
        )

    @property
    def last_step(self) -> int:
        """The global step at which the run is finished."""
        return self.total_steps if self.finish_at is None else min(self.total_steps, self.finish_at)


class SettingsEntry(BaseModel):
    """Settings, and the first global step they hold for."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    from_step: Step
    settings: RunSettings


class SettingsPlan(BaseModel):
    """Everything that was changed, as a checkpoint keeps it.

    :param version: how many changes were made; `issuer`: peer id of the coordinator that made the newest
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    version: Annotated[int, Field(ge=1, lt=2**53)]
    issuer: Annotated[str, Field(max_length=200)]
    entries: Annotated[tuple[SettingsEntry, ...], Field(min_length=1, max_length=MAX_ENTRIES, strict=False)]


@dataclass(frozen=True)
class SettingsChange:
    """These settings hold from this global step on."""

    version: int
    from_step: int
    settings: RunSettings


class SettingsBook:
    """A participant's knowledge of the settings by global step; for any thread.

    >>> book = SettingsBook(RunSpec(name="demo"))
    >>> book.at(10).target_batch_size
    4096
    >>> change = RunSettings(target_batch_size=64, total_steps=100, checkpoint_every_steps=5)
    >>> book.take(1, "12D3KooW", [*book.entries, SettingsEntry(from_step=8, settings=change)])
    True
    >>> book.at(7).target_batch_size, book.at(8).target_batch_size
    (4096, 64)
    """

    def __init__(self, spec: RunSpec):
        self.spec = spec
        self.entries: tuple[SettingsEntry, ...] = (SettingsEntry(from_step=0, settings=RunSettings.of(spec)),)
        self._newest: tuple[int, str] = (0, "")
        self._lock = threading.Lock()

    @property
    def version(self) -> int:
        """How many changes were made; 0 for the spec as it is."""
        return self._newest[0]

    @property
    def issuer(self) -> str:
        """Peer id of the coordinator that made the newest change."""
        return self._newest[1]

    @property
    def changed(self) -> SettingsPlan | None:
        """The plan as it is now; None as long as nothing was changed."""
        with self._lock:
            version, issuer = self._newest
            return SettingsPlan(version=version, issuer=issuer, entries=self.entries) if version else None

    def take(self, version: int, issuer: str, entries: Sequence[SettingsEntry]) -> bool:
        """Take a plan over if it is newer than ours; of two with the same version all take the same one."""
        with self._lock:
            if (version, issuer) <= self._newest or not entries:
                return False
            self._newest, self.entries = (version, issuer), tuple(entries)
            return True

    def at(self, step: int) -> RunSettings:
        """What holds for the update that leads from `step` to the next."""
        entries = self.entries
        held = [entry for entry in entries if entry.from_step <= step]
        return (held or entries[:1])[-1].settings

    def learning_rate_at(self, step: int) -> float:
        """Learning rate of the update that leads from `step` to the next."""
        settings = self.at(step)
        return settings.learning_rate_scale * self.spec.learning_rate_at(step, settings.total_steps)

    def is_finished_at(self, step: int) -> bool:
        """Whether no update is made from this step on."""
        return step >= self.at(step).last_step

    def plan(self, from_step: int, now_at: int, **changes: Any) -> list[SettingsEntry]:
        """Our entries and a changed one at the end; those that no longer matter at step `now_at` are left out.

        :raises ValueError: a value is impossible (pydantic's ValidationError)
        """
        last = self.entries[-1].settings
        settings = RunSettings.model_validate({**last.model_dump(), **changes})
        entries = [*self.entries, SettingsEntry(from_step=from_step, settings=settings)]
        while len(entries) > 1 and entries[1].from_step <= now_at:
            del entries[0]
        return entries[-MAX_ENTRIES:]
