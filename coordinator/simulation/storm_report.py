"""What a real storm tells the simulator: who ran, what was done to them and when, and every peer's global steps.

A storm writes this as one JSON object. Fields that are not named here are ignored, so the file may hold more (losses,
leftovers). All times are seconds since the storm's beginning; the beginning is when the first peer was started.
"""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from coordinator.simulation.json_files import read_json
from swarm.spec import RunSpec

NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class StormEventKind(str, Enum):
    """What happened to a peer: most are done by the storm, the last two are read off the peer's own lines."""

    START = "start"  # its process was started, for the first time or again
    KILL = "kill"  # kill -9
    LEAVE = "leave"  # told to go, SIGTERM
    FREEZE = "freeze"  # SIGSTOP
    RESUME = "resume"  # SIGCONT
    CUT = "cut"  # its network link went down
    HEAL = "heal"  # and up again
    COORDINATOR_KILL = "coordinator_kill"
    COORDINATOR_START = "coordinator_start"
    SYNCED = "synced"  # it has the swarm's state and begins to compute
    LEFT = "left"  # its process ended by itself


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class StormPeer(_Record):
    """One peer of the storm; a restarted process under the same name is the same peer.

    :param samples_per_second: median of what it reported while all peers were computing
    """

    name: str
    samples_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)]


class StormEvent(_Record):
    """`peer` is the peer's name, None for what happened to the coordinator."""

    t: NonNegative
    kind: StormEventKind
    peer: str | None = None


class StepSeconds(_Record):
    """How one peer's global step divides: computing since its last step, finding the group, exchanging.

    `matchmaking` and `allreduce` are sums over the step's rounds (gradients, and parameters if re-averaged) and over
    failed attempts; `total` is from the end of this peer's last step to the end of this one.
    """

    compute: NonNegative = 0.0
    matchmaking: NonNegative = 0.0
    allreduce: NonNegative = 0.0
    total: NonNegative = 0.0


class StormStep(_Record):
    """One peer's part in one global step, at the moment it was finished; as in the peer's own `step` line.

    :param samples: this peer's own samples in it
    :param group: peers that averaged, this one included
    :param received: share of the averaged gradient that arrived
    """

    t: NonNegative
    peer: str
    global_step: Annotated[int, Field(ge=1)]
    samples: Annotated[int, Field(ge=0)]
    group: Annotated[int, Field(ge=1)]
    received: Share = 1.0
    seconds: StepSeconds


class StormReport(_Record):
    """A whole storm, as far as a simulation of the same storm needs it.

    >>> report = StormReport.model_validate_json(path.read_bytes())                     # doctest: +SKIP

    :param spec: the run spec itself, as `RunSpec.model_dump(mode="json")`, so that the file stands alone
    :param seconds: how long the storm was watched
    :param cores: of the one machine that all peers share: survivors get faster there; None when every peer has a
        machine of its own
    :param grace: seconds that a peer which is told to go may take
    :param samples_computed: by all peers, the killed ones' last known counts included
    :param samples_in_steps: that went into global steps; their ratio is the goodput
    :param rounds_partial: summed over peers, as their records count them
    """

    command: str = ""
    spec: RunSpec
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    cores: Annotated[int, Field(ge=1)] | None = None
    grace: Annotated[float, Field(gt=0)] = 30.0
    peers: tuple[StormPeer, ...] = Field(min_length=1)
    events: tuple[StormEvent, ...]
    steps: tuple[StormStep, ...]
    steps_committed: Annotated[int, Field(ge=0)]
    samples_computed: Annotated[int, Field(ge=0)]
    samples_in_steps: Annotated[int, Field(ge=0)]
    rounds_partial: Annotated[int, Field(ge=0)] = 0
    rounds_failed: Annotated[int, Field(ge=0)] = 0

    @model_validator(mode="after")
    def _names_are_known(self) -> StormReport:
        names = {peer.name for peer in self.peers}
        named = {event.peer for event in self.events if event.peer} | {step.peer for step in self.steps}
        unknown = sorted(named - names)
        if unknown:
            raise ValueError(f"events or steps name peers that are not in `peers`: {', '.join(unknown)}")
        return self

    @property
    def goodput(self) -> float:
        """Samples in global steps / samples computed; 1.0 before any were computed."""
        return self.samples_in_steps / self.samples_computed if self.samples_computed else 1.0


def load_storm_report(path: Path) -> StormReport:
    """Read a storm's JSON; raises `BadInput` naming the first keys that do not fit."""
    return read_json(StormReport, path, what="storm report", maker="python -m tests.scenarios.storm")
