"""The leader's orders to its followers, and what they tell it, through the key-value store of the supervisor.

Orders are numbered and heard in sequence, between two micro-batches: looking for the next one is a request to a
socket on this machine (0.1 ms), not a meeting. Where all must meet, in an exchange of tensors, followers first say
that they are there, so that the leader never waits in an exchange for somebody who has died.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from torch.distributed import Store

from swarm.errors import OperationFailed
from swarm.spec import RunSpec

SHORTEST_PAUSE, LONGEST_PAUSE = 0.001, 0.02
CHECK_SECONDS = 0.5


class RanksLost(OperationFailed):
    """A rank of this node has ended or does not answer; says which. The node has to start again."""


@dataclass(frozen=True)
class Order:
    """What the followers are to do.

    `train` until the next order; `collect` sends what was accumulated to the leader, and waits; `discard` throws it
    away, and waits; `end` ends the process.

    :param step: global step to train at
    :param load: take over the leader's parameters first
    :param arrived: the state is a newly fetched one
    :param others: median position of the other peers in the text, in epochs
    :param speeds: samples/s of all peers, by peer id
    :param loss_scale: that all ranks have agreed on
    """

    do: Literal["train", "collect", "discard", "end"]
    step: int = 0
    load: bool = False
    arrived: bool = False
    others: float = 0.0
    speeds: Mapping[str, float] = field(default_factory=dict)
    loss_scale: float | None = None


@dataclass(frozen=True)
class Setup:
    """What followers need to know before they can compute. `spec`: its canonical JSON."""

    spec: str
    bundle: str
    peer_id: str

    def run_spec(self) -> RunSpec:
        """The run spec itself."""
        return RunSpec.model_validate_json(self.spec)


class Orders:
    """One end of the channel, for the leader or a follower.

    >>> orders = Orders(store, ranks=4)                    # doctest: +SKIP
    >>> number = orders.post(Order("collect"))             # doctest: +SKIP
    >>> orders.await_everybody(number, lambda: None)       # doctest: +SKIP
    """

    def __init__(self, store: Store, ranks: int):
        self._store, self._ranks = store, ranks
        self._next = self._swept = 0

    # The leader's side.

    def tell_setup(self, setup: Setup) -> None:
        """Say what to build."""
        self._store.set("setup", json.dumps(asdict(setup)))

    def post(self, order: Order) -> int:
        """Give an order; returns its number."""
        number, self._next = self._next, self._next + 1
        self._store.set(f"order/{number}", json.dumps(asdict(order)))
        return number

    def await_everybody(self, number: int, check: Callable[[], None]) -> None:
        """Block until all followers have heard this order.

        :param check: called now and then; raises when there is no use in waiting any longer
        """
        if self._ranks > 1:
            self._await(f"all/{number}", check)
        # not the keys of this order: its followers are still to count their samples
        for old in range(self._swept, number):
            for kind in ("order", "here", "all", "samples"):
                self._store.delete_key(f"{kind}/{old}")
        self._swept = number

    def samples_since(self, number: int) -> int:
        """How many samples the followers have accumulated since they heard this order."""
        return self._store.add(f"samples/{number}", 0)

    # A follower's side.

    def await_setup(self) -> Setup | None:
        """What to build; None if there is nothing to do any more."""
        while not self._store.check(["setup"]):
            if self.has_next(0):
                return None
            time.sleep(LONGEST_PAUSE)
        return Setup(**json.loads(self._store.get("setup")))

    def has_next(self, number: int) -> bool:
        """Whether this order has been given."""
        return self._store.check([f"order/{number}"])

    def hear(self, number: int) -> Order:
        """This order; waits for it."""
        self._await(f"order/{number}", lambda: None)
        return Order(**json.loads(self._store.get(f"order/{number}")))

    def say_here(self, number: int) -> None:
        """We have heard the order and are about to meet the others."""
        if self._store.add(f"here/{number}", 1) == self._ranks - 1:
            self._store.set(f"all/{number}", "")

    def count(self, number: int, samples: int) -> None:
        """We have accumulated so many more since this order."""
        self._store.add(f"samples/{number}", samples)

    def _await(self, key: str, check: Callable[[], None]) -> None:
        """Block until there is such a key. Asking again and again costs less than a wait that ends without it."""
        pause, next_check = SHORTEST_PAUSE, time.monotonic() + CHECK_SECONDS
        while not self._store.check([key]):
            time.sleep(pause)
            pause = min(LONGEST_PAUSE, 1.5 * pause)
            if time.monotonic() > next_check:
                check()
                next_check = time.monotonic() + CHECK_SECONDS
