"""A rank whose node makes global steps for `peer bench --ranks`: a peer of a run in everything but the swarm.

Followers do exactly what they do in a run; the leader makes the steps of a peer that is alone, and measures what they
take. Text, tokenizer and model come from a bundle of made-up text.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from peer.device_facts import DeviceFacts
from peer.micro_batches import MicroBatches
from peer.node.computing import begin_computing, build_micro_batches
from peer.node.followers import Followers, Surroundings
from peer.node.orders import Setup
from peer.node.rank_process import Rank, be_rank
from peer.options import JoinOptions
from swarm.training_state import TrainingState

LEAST_STEPS = 2


@dataclass(frozen=True)
class MeasuredStep:
    """A global step of a node as its leader saw it: samples of all ranks, seconds in all and by what they went into.

    `compute` is what is left of `seconds`. `wait`: for the slowest rank to finish its micro-batch; `reduce`: the sums'
    way to the leader; `update`: the optimizer's step; `broadcast`: the parameters' way back.
    """

    samples: int
    seconds: float
    parts: dict[str, float]


@dataclass(frozen=True)
class MeasuredNode:
    """Global steps of one node, and how many parameters its model has."""

    parameters: int
    steps: list[MeasuredStep]


def run_measured_rank(
    options: JoinOptions,
    devices: Sequence[DeviceFacts],
    setup: Setup,
    accumulate: int,
    seconds: float,
    *,
    debug: bool,
) -> MeasuredNode | None:
    """Be one rank; the leader returns what it measured.

    :param accumulate: micro-batches of each rank per global step
    :param seconds: how long to go on, at least for `LEAST_STEPS` global steps after the first
    """
    return be_rank(
        options,
        devices,
        lambda rank: _measure(options, rank, setup, accumulate, seconds),
        debug=debug,
        leaves_politely=False,
    )


def _measure(options: JoinOptions, rank: Rank, setup: Setup, accumulate: int, seconds: float) -> MeasuredNode:
    followers = rank.followers()
    followers.tell_setup(setup)
    micro_batches = build_micro_batches(setup, options, rank.facts, rank.family, {setup.peer_id: 1.0})
    state = TrainingState(setup.run_spec(), micro_batches.model, micro_batches.device)
    followers.meet(state.model_parameters, micro_batches.accumulator)
    followers.watch(lambda _reason: None)
    begin_computing(micro_batches, options)
    due = rank.family.ranks * accumulate * micro_batches.samples.batch_size
    steps = _Steps(state, micro_batches, followers, due)
    steps.make()  # compiles, allocates, connects
    taken: list[MeasuredStep] = []
    while len(taken) < LEAST_STEPS or sum(step.seconds for step in taken) < seconds:
        taken.append(steps.make())
    followers.end()
    micro_batches.samples.close()
    return MeasuredNode(sum(parameter.numel() for parameter in state.parameters), taken)


class _Steps:
    """Global steps of a node that is alone.

    :param due: samples of a step
    """

    def __init__(self, state: TrainingState, micro_batches: MicroBatches, followers: Followers, due: int):
        self.state, self.micro_batches, self.samples = state, micro_batches, micro_batches.samples
        self.followers, self.due = followers, due
        self.accumulator, self.device = micro_batches.accumulator, micro_batches.device
        self.buffers = [torch.zeros(parameter.shape) for parameter in state.parameters]
        self._waited = 0.0

    def make(self) -> MeasuredStep:
        """One global step."""
        started = time.monotonic()
        self.followers.train(self.state, Surroundings)
        while self.accumulator.samples + self.followers.samples < self.due:
            self.micro_batches.compute(self.state.step)
        self._finish()
        self.followers.collect(self.accumulator)
        collected = time.monotonic()
        samples = self.accumulator.samples
        self.accumulator.take().mean_into(self.buffers)
        self.state.apply_gradients(self.buffers, f"{self.state.step + 1:x}")
        self._finish()
        ended = time.monotonic()
        self.samples.keep_up(0.0)
        return self._measured(samples, ended - started, ended - collected)

    def _measured(self, samples: int, seconds: float, update: float) -> MeasuredStep:
        reduce, broadcast = self.followers.take_seconds()
        wait, self._waited = self.followers.wait_seconds - self._waited, self.followers.wait_seconds
        parts = {"data": self.samples.take_wait(), "wait": wait, "reduce": reduce - wait}
        parts |= {"update": update, "broadcast": broadcast}
        return MeasuredStep(samples, seconds, {"compute": seconds - sum(parts.values()), **parts})

    def _finish(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
