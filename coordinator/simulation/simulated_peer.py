"""One simulated peer: what it is doing, how far its accumulator is, where its time went."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import Enum

from coordinator.simulation.churn import PeerTraits

# a micro-batch that is done but for rounding errors is done
ROUNDING = 1e-9


class Doing(int, Enum):
    """Where a peer's time goes; the first four are the parts of its online time."""

    COMPUTING = 0
    AVERAGING = 1  # exchanging and updating
    WAITING = 2  # for other members, for timeouts, for the step that it leaves after
    SYNCING = 3  # starting, and downloading a state
    FROZEN = 4
    GONE = 5


@dataclass(eq=False)
class SimulatedPeer:
    """Accumulates linearly in time, counts in whole micro-batches.

    :param life: counts starts and blows, so that what was scheduled for an earlier life is ignored
    :param state_step: global step of the state it holds
    :param carried: samples that leaving peers handed over
    """

    number: int
    traits: PeerTraits
    micro_batch: int
    doing: Doing = Doing.GONE
    life: int = 0
    state_step: int = -1
    carried: int = 0
    leaving: bool = False
    reachable: bool = True
    frozen_since: float = math.inf
    made_a_step: bool = False
    started: float = 0.0
    rate: float = 0.0
    seconds: list[float] = field(default_factory=lambda: [0.0] * len(Doing))
    _progress: float = 0.0
    _marked: float = 0.0
    _doing_since: float = 0.0

    def turn_to(self, doing: Doing, t: float) -> None:
        """Book the time so far and do something else."""
        self.seconds[self.doing] += t - self._doing_since
        self.doing, self._doing_since = doing, t

    def set_rate(self, rate: float, t: float) -> None:
        """Go on at another speed, 0.0 to stop; what was done stays done."""
        self._progress, self._marked, self.rate = self.progress(t), t, rate

    def stop_after_micro_batch(self, t: float) -> None:
        """Stop; `t` is the end of a micro-batch up to rounding."""
        self._progress, self._marked, self.rate = float(self.own_samples(t)), t, 0.0

    def progress(self, t: float) -> float:
        """Own samples with the fraction of the micro-batch in hand."""
        return self._progress + self.rate * (t - self._marked)

    def own_samples(self, t: float) -> int:
        """Samples of whole micro-batches, as in its lease."""
        return int(self.progress(t) / self.micro_batch + ROUNDING) * self.micro_batch

    def samples(self, t: float) -> int:
        """What it would put into a step now."""
        return self.own_samples(t) + self.carried

    def micro_batch_end(self, t: float) -> float:
        """When the micro-batch in hand at `t` ends, `t` itself between two; never if it does not compute."""
        done = self.progress(t) / self.micro_batch
        target = math.ceil(done - ROUNDING) * self.micro_batch
        if target == 0:
            target = self.micro_batch  # nobody looks around before the first one is done
        return t + max(0.0, target - self.progress(t)) / self.rate if self.rate > 0 else math.inf

    def take(self, t: float) -> tuple[int, int]:
        """Empty the accumulator: (own samples, samples with the carried ones)."""
        own = self.own_samples(t)
        total = own + self.carried
        self._progress, self._marked, self.carried = 0.0, t, 0
        return own, total


@dataclass(frozen=True)
class Ghost:
    """The lease of a peer that is not there: believed until it expires or the step is over."""

    peer: int
    expires: float
    samples: int
    step: int
