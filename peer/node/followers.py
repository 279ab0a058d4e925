"""What the training loop knows of the other ranks of its node: a sum that they accumulate, and orders to them.

`Followers` is what it needs of them. A peer of one process has `NoFollowers`. With `OtherRanks`, ranks accumulate for
themselves and meet twice a global step; a slow one costs the others at most what is left of its current micro-batch.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from peer.accumulator import Accumulator
from peer.node.exchange import Exchange, close_group
from peer.node.family import Family
from peer.node.orders import Order, Orders, RanksLost, Setup
from swarm.training_state import TrainingState

Result = TypeVar("Result")

# a rank that computes longer than this at one micro-batch is taken for dead
PATIENCE_SECONDS = 300.0


@dataclass(frozen=True)
class Surroundings:
    """What a rank needs to know of the swarm to choose its text; see `Order`."""

    others: float = 0.0
    speeds: Mapping[str, float] | None = None
    arrived: bool = False


@dataclass(frozen=True)
class Tally:
    """What each rank tells when it sends its sum: summed over all of them.

    :param computed: samples since the last time, those that were thrown away included
    :param waited: seconds without text since the last time
    """

    samples: float
    loss_sum: float
    computed: float
    speed: float
    waited: float

    def as_list(self) -> list[float]:
        return [self.samples, self.loss_sum, self.computed, self.speed, self.waited]


class Followers(Protocol):
    """The other ranks of a node, as their leader needs them.

    :raises RanksLost: from every method that waits for a rank that has gone
    """

    @property
    def ranks(self) -> int:
        """How many ranks the node has, the leader included."""

    @property
    def samples(self) -> int:
        """Accumulated by the followers and not collected yet."""

    @property
    def samples_computed(self) -> int:
        """In all, as far as they have told."""

    @property
    def samples_per_second(self) -> float:
        """Of all followers together; 0 until they have told."""

    @property
    def waited(self) -> float:
        """Seconds without text of all followers, since the step before the last."""

    @property
    def wait_seconds(self) -> float:
        """In all, that `collect` has waited until the slowest had finished its micro-batch."""

    def tell_setup(self, setup: Setup) -> None:
        """Say what to build."""

    def meet(self, parameters: Sequence[torch.nn.Parameter], accumulator: Accumulator) -> None:
        """Connect, when the models are built."""

    def watch(self, on_loss: Callable[[str], None]) -> None:
        """Begin to notice when a rank ends."""

    def train(self, state: TrainingState, surroundings: Callable[[], Surroundings]) -> None:
        """Let all train at the state's step, with its parameters; costs nothing if they do already."""

    def collect(self, accumulator: Accumulator) -> None:
        """Move what all have accumulated into our accumulator; they wait from then on."""

    def discard(self) -> None:
        """Have everything thrown away that was accumulated; they wait from then on."""

    def end(self) -> None:
        """Let them go."""

    def take_seconds(self) -> tuple[float, float]:
        """Seconds spent in `collect` and in handing out parameters since this was last asked."""


class NoFollowers:
    """Those of a peer of one process: nothing to say, nothing to wait for."""

    ranks = 1
    samples = samples_computed = 0
    samples_per_second = waited = wait_seconds = 0.0

    def tell_setup(self, setup: Setup) -> None: ...

    def meet(self, parameters: Sequence[torch.nn.Parameter], accumulator: Accumulator) -> None: ...

    def watch(self, on_loss: Callable[[str], None]) -> None: ...

    def train(self, state: TrainingState, surroundings: Callable[[], Surroundings]) -> None: ...

    def collect(self, accumulator: Accumulator) -> None: ...

    def discard(self) -> None: ...

    def end(self) -> None: ...

    def take_seconds(self) -> tuple[float, float]:
        return 0.0, 0.0


class OtherRanks:
    """The followers of a node of several ranks: orders to them, exchanges of tensors with them."""

    def __init__(self, orders: Orders, family: Family, group: Callable[[], None]):
        self._orders, self._family, self._group = orders, family, group
        self.ranks = family.ranks
        self.samples_computed = 0
        self.samples_per_second = self.waited = self.wait_seconds = 0.0
        self._exchange: Exchange | None = None
        self._accumulator: Accumulator | None = None
        self._training: int | None = None
        self._parameters_of: int | None = None
        self._reduce = self._broadcast = 0.0

    @property
    def samples(self) -> int:
        return self._orders.samples_since(self._training) if self._training is not None else 0

    def tell_setup(self, setup: Setup) -> None:
        self._orders.tell_setup(setup)

    def meet(self, parameters: Sequence[torch.nn.Parameter], accumulator: Accumulator) -> None:
        self._group()
        self._exchange, self._accumulator = Exchange(parameters), accumulator

    def watch(self, on_loss: Callable[[str], None]) -> None:
        self._family.watch(on_loss)

    def train(self, state: TrainingState, surroundings: Callable[[], Surroundings]) -> None:
        if self._training is not None:
            return
        self._check()
        started, around = time.monotonic(), surroundings()
        load = self._parameters_of != state.model_version
        scale = self._accumulator.scale if self._accumulator is not None else None
        order = Order(
            "train",
            step=state.step,
            load=load,
            arrived=around.arrived,
            others=around.others,
            speeds=dict(around.speeds or {}),
            loss_scale=scale.value if scale is not None else None,
        )
        self._training = self._orders.post(order)
        if load:
            self._await(self._training)
            with state.lock:
                self._exchanging(lambda exchange: exchange.load_from_leader())
            self._parameters_of = state.model_version
        self._broadcast += time.monotonic() - started

    def collect(self, accumulator: Accumulator) -> None:
        if self._training is None:
            return
        self._check()
        started = time.monotonic()
        number = self._orders.post(Order("collect"))
        self._await(number)
        self.wait_seconds += time.monotonic() - started
        self._training = None
        sums = accumulator.sums()
        own = Tally(accumulator.samples, accumulator.loss_sum, 0.0, 0.0, 0.0)

        def exchange_all(exchange: Exchange) -> tuple[list[torch.Tensor], Tally]:
            return exchange.sum_to_leader(sums), Tally(*exchange.sum_facts(own.as_list()))

        totals, tally = self._exchanging(exchange_all)
        accumulator.replace(totals, round(tally.samples), tally.loss_sum)
        if accumulator.scale is not None:
            value = accumulator.scale.value
            accumulator.scale.agree(self._exchanging(lambda exchange: exchange.lowest(value)))
        self.samples_computed += round(tally.computed)
        self.samples_per_second, self.waited = tally.speed, tally.waited
        self._reduce += time.monotonic() - started

    def discard(self) -> None:
        self._parameters_of = None
        if self._training is not None:
            self._orders.post(Order("discard"))
            self._training = None

    def end(self) -> None:
        self._family.part()
        self._orders.post(Order("end"))
        self._training = None
        if not self._family.loss:
            close_group()

    def take_seconds(self) -> tuple[float, float]:
        seconds = self._reduce, self._broadcast
        self._reduce = self._broadcast = 0.0
        return seconds

    def _await(self, number: int) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS

        def check() -> None:
            self._check()
            if time.monotonic() > deadline:
                raise RanksLost(f"a rank has not answered for {PATIENCE_SECONDS:.0f} s")

        self._orders.await_everybody(number, check)

    def _check(self) -> None:
        if self._family.loss:
            raise RanksLost(self._family.loss)

    def _exchanging(self, exchange: Callable[[Exchange], Result]) -> Result:
        if self._exchange is None:
            raise RanksLost("the ranks have not met yet")
        try:
            return exchange(self._exchange)
        except RuntimeError as error:  # what gloo and NCCL raise when the other end has gone
            raise RanksLost(
                f"an exchange between ranks broke off: {str(error).splitlines()[0][:150]}"
            ) from None
