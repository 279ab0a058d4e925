"""The life of a rank that is not the leader: builds the model, then computes and obeys until it is told to end.

It keeps neither the optimizer's moments nor a connection to the swarm. Its text is its own share of the peer's share.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

from peer.device_facts import DeviceFacts
from peer.micro_batches import MicroBatches
from peer.node.computing import begin_computing, build_micro_batches, trained_parameters
from peer.node.exchange import Exchange, close_group
from peer.node.family import Family
from peer.node.followers import Tally
from peer.node.orders import Order, Orders, Setup
from peer.options import JoinOptions


def follow(
    setup: Setup,
    options: JoinOptions,
    facts: DeviceFacts,
    orders: Orders,
    family: Family,
    meet: Callable[[], None],
) -> None:
    """Be a follower from its setup to its end.

    :param meet: connects all ranks
    """
    speeds: dict[str, float] = {}
    micro_batches = build_micro_batches(setup, options, facts, family, speeds)
    meet()
    family.watch(_end_at_once)
    begin_computing(micro_batches, options)
    exchange = Exchange(trained_parameters(micro_batches.model))
    Follower(orders, family, micro_batches, exchange, speeds).run()
    micro_batches.samples.close()
    close_group()


class Follower:
    """Computes and obeys.

    :param speeds: kept up to date with what the leader tells of all peers
    """

    def __init__(
        self,
        orders: Orders,
        family: Family,
        micro_batches: MicroBatches,
        exchange: Exchange,
        speeds: dict[str, float],
    ):
        self._orders, self._family, self._exchange = orders, family, exchange
        self._micro_batches, self._speeds = micro_batches, speeds
        self._accumulator, self._samples = micro_batches.accumulator, micro_batches.samples
        self._told_computed = 0

    def run(self) -> None:
        """Obey until the end."""
        training: int | None = None
        step = number = 0
        while True:
            if training is not None and not self._orders.has_next(number):
                before = self._accumulator.samples
                self._micro_batches.compute(step)
                self._orders.count(training, self._accumulator.samples - before)
                continue
            order = self._orders.hear(number)
            training = number if order.do == "train" else None
            if order.do == "train":
                step = order.step
                self._begin(order, number)
            elif order.do == "collect":
                self._send(number)
            elif order.do == "discard":
                self._accumulator.reset()
            else:
                self._end()
                return
            number += 1

    def _begin(self, order: Order, number: int) -> None:
        if order.load:
            self._orders.say_here(number)
            self._exchange.load_from_leader()
        if self._accumulator.scale is not None and order.loss_scale is not None:
            self._accumulator.scale.agree(order.loss_scale)
        _replace(self._speeds, order.speeds)
        if order.arrived:
            self._samples.join_others(order.others, order.step)
        else:
            self._samples.keep_up(order.others)

    def _send(self, number: int) -> None:
        self._orders.say_here(number)
        sums = self._accumulator.sums()
        computed = self._micro_batches.samples_computed
        tally = Tally(
            self._accumulator.samples,
            self._accumulator.loss_sum,
            computed - self._told_computed,
            self._micro_batches.samples_per_second,
            self._samples.take_wait(),
        )
        self._exchange.sum_to_leader(sums)
        self._exchange.sum_facts(tally.as_list())
        if self._accumulator.scale is not None:
            self._exchange.lowest(self._accumulator.scale.value)
        self._told_computed = computed
        self._accumulator.reset()

    def _end(self) -> None:
        self._family.part()
        self._samples.save()


def _replace(speeds: dict[str, float], fresh: Mapping[str, float]) -> None:
    """In place, for the thread that reads ahead; peers that are gone go last, so that none is ever missing."""
    speeds.update(fresh)
    for peer in set(speeds) - set(fresh):
        del speeds[peer]


def _end_at_once(_reason: str) -> None:
    os._exit(1)
