"""What the coordinator knows of its run at one moment: the JSON of `coordinator status --json`.

The first fields of each model, and their order, are a contract that users' scripts depend on; fields the
dashboard needs besides are appended after them and always have a default. Numbers that are not finite
become null in JSON.
"""

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from swarm.records import DeviceReading
from swarm.trouble import describe_trouble

PeerState = Literal["joining", "syncing", "training", "averaging", "leaving", "stalled", "lost"]
RunState = Literal["waiting", "training", "stalled", "finished"]

PEER_STATES: tuple[PeerState, ...] = get_args(PeerState)
AWAY_STATES: tuple[PeerState, ...] = ("leaving", "lost")

# null is read as what is not known, since that is how a rate that is not finite was written
Rate = Annotated[float, BeforeValidator(lambda value: 0.0 if value is None else value)]


class PeerStatus(BaseModel):
    """One peer as the tracker sees it. `last_seen` is seconds since it was heard, rates are per second."""

    model_config = ConfigDict(frozen=True)

    peer_id: str
    name: str
    state: PeerState
    device: str = ""
    ranks: int = 1
    samples_per_second: Rate = 0.0
    samples_contributed: int = 0
    global_step: int = 0
    loss: float | None = None
    last_seen: float = 0.0

    client_mode: bool = False
    version: str = ""
    hardware: str = ""
    error: str | None = None
    share: float | None = None
    """Part of the run's samples that came from this peer, 0 to 1."""
    samples_accumulated: int = 0
    """Samples of the current global step."""
    partial_rounds: int = 0
    failed_rounds: int = 0
    reloads: dict[str, int] = Field(default_factory=dict)
    """How often it fetched the swarm's state again, by reason."""
    goodput: float | None = None
    """Samples that went into global steps / samples computed by this peer."""
    handed_over: int | None = None
    """Samples that it computed and, when leaving, handed over to another peer; since it last joined."""
    taken_over: int = 0
    """Samples that it took over from peers that left; since it last joined."""

    devices: tuple[DeviceReading, ...] = ()
    """What its accelerators do right now."""

    @property
    def trouble(self) -> str:
        """What went wrong since it last joined, counted by reason; empty if nothing did."""
        return describe_trouble(self.partial_rounds, self.failed_rounds, self.reloads)


class CheckpointStatus(BaseModel):
    """One checkpoint on disk; `path` is relative to the run directory."""

    model_config = ConfigDict(frozen=True)

    step: int
    path: str
    heldout_loss: float | None = None
    digest: str = ""

    saved_at: float | None = None
    heldout_accuracy: float | None = None


class RunStatus(BaseModel):
    """The whole run at `generated_at` (Unix seconds).

    >>> RunStatus(run_id="demo", state="waiting", target_batch_size=64).model_dump_json()[:40]
    '{"run_id":"demo","state":"waiting","glob'
    """

    model_config = ConfigDict(frozen=True)

    run_id: str
    state: RunState
    global_step: int = 0
    target_batch_size: int = 1
    peers_online: int = 0
    samples_per_second: Rate = 0.0
    samples_total: int = 0
    goodput: float | None = None
    train_loss: float | None = None
    heldout_loss: float | None = None
    peers: list[PeerStatus] = Field(default_factory=list)
    checkpoints: list[CheckpointStatus] = Field(default_factory=list)

    generated_at: float = 0.0
    started_at: float | None = None
    target_steps: int | None = None
    samples_accumulated: int = 0
    """Samples the swarm has gathered for the current global step."""
    reason: str | None = None
    """One sentence saying why the run waits or stalls."""
    split: bool = False
    """The peers seem to form two swarms that do not average with each other."""
    join_line: str = ""
    fingerprint: str = ""
    paused: bool = False
    """The operator has stopped the computing; peers stay."""
    settings_version: int = 0
    """How many changes of settings were made while the run went on."""


def count_by_state(status: RunStatus) -> dict[PeerState, int]:
    """Number of peers in each state, states without peers included."""
    counts: dict[PeerState, int] = dict.fromkeys(PEER_STATES, 0)
    for peer in status.peers:
        counts[peer.state] += 1
    return counts
