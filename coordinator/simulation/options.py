"""What an operator may choose about a simulated swarm; everything about the run itself is in its spec."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from coordinator.simulation.distributions import Distribution
from swarm.errors import BadInput

MAX_PEERS = 5000


class Churn(str, Enum):
    """How peers come and go."""

    NONE = "none"
    POISSON = "poisson"
    DAY_NIGHT = "day-night"


@dataclass(frozen=True)
class SimulationOptions:
    """A swarm to simulate.

    >>> SimulationOptions(peers=100, hours=48.0, churn=Churn.POISSON).seconds
    172800.0

    :param peers: online on average
    :param mean_stay: seconds that a peer stays on average (exponential)
    :param speeds: samples per second of a peer
    :param bandwidth: of a peer, Mbit/s in each direction; None: unlimited, as on one machine
    :param polite: share of departures that are announced; the others are kills
    :param grace: seconds that an announced departure may take
    """

    peers: int = 64
    hours: float = 24.0
    seed: int = 0
    churn: Churn = Churn.NONE
    mean_stay: float = 4 * 3600.0
    speeds: Distribution = field(default_factory=lambda: Distribution("choice", (50.0,)))
    bandwidth: Distribution | None = field(default_factory=lambda: Distribution("choice", (100.0,)))
    polite: float = 0.5
    grace: float = 30.0

    def __post_init__(self) -> None:
        if not 1 <= self.peers <= MAX_PEERS:
            raise BadInput(f"--peers {self.peers}: must be between 1 and {MAX_PEERS}")
        if not 0 < self.hours <= 24 * 31:
            raise BadInput(f"--hours {self.hours:g}: must be positive and at most a month, 744")
        if not 0 <= self.polite <= 1:
            raise BadInput(f"--polite {self.polite:g}: is a share of all departures, between 0 and 1")
        if not self.mean_stay > 0:
            raise BadInput(f"--mean-stay {self.mean_stay:g}: must be positive")

    @property
    def seconds(self) -> float:
        """Length of the simulated time."""
        return self.hours * 3600.0
