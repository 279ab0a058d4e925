"""Orders of a leader to its followers, over a store in this process."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from torch.distributed import HashStore

from peer.node.orders import Order, Orders


def meet_at(order: Order, leader: Orders, followers: Sequence[Orders]) -> int:
    """Give an order that all hear and meet at; returns its number."""
    number = leader.post(order)
    for follower in followers:
        assert follower.hear(number) == order
        follower.say_here(number)
    leader.await_everybody(number, lambda: None)
    return number


@pytest.mark.parametrize("collected", [True, False], ids=["collected", "discarded"])
def test_the_store_holds_no_more_after_many_global_steps(collected: bool) -> None:
    store = HashStore()
    leader, *followers = (Orders(store, ranks=3) for _ in range(3))
    keys = []
    for step in range(6):
        training = meet_at(Order("train", step=step, load=True), leader, followers)
        for follower in followers:
            follower.count(training, 4)
        assert leader.samples_since(training) == 8
        if collected:
            meet_at(Order("collect"), leader, followers)
        else:
            leader.post(Order("discard"))
        keys.append(store.num_keys())
    assert keys[1:] == [keys[1]] * 5
