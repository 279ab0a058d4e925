"""Real ranks that make global steps from made-up micro-batches; one JSON object in and out per line.

{"folder", "spec", "ranks": [[seed, …], …], "steps", "poisoned": rank, "scales": [value, …]} starts a process per list
of seeds, which accumulates one micro-batch per seed and step; the answer is {"ended": true}, and then
`folder/rank-0.pt` holds the leader's parameters, facts beside them, and so on. With "initial_peers" the node makes them
together with another participant of that swarm, and says {"entered": true} as soon as it is there.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path

import torch
from torch.distributed import PrefixStore

from peer.accumulator import Accumulator
from peer.loss_scale import LossScale
from peer.node.agent import OneNode, has_succeeded, run_ranks, start_fork_server
from peer.node.exchange import Exchange, open_group
from peer.node.family import Family, connect_store
from peer.node.follower import Follower
from peer.node.followers import Followers, OtherRanks, Surroundings
from peer.node.orders import Orders
from peer.stepper import stepper_for
from swarm.lifeline import die_with_parent
from swarm.spec import load_spec
from tests.scenarios.step_participant import MICRO_BATCH, enter_swarm, loss_of, new_state, wait_for_members

CPU = torch.device("cpu")


def main() -> None:
    start_fork_server("tests.scenarios.step_participant")
    for line in sys.stdin:
        command = json.loads(line)
        # not from `__main__`: ranks import what they run
        from tests.scenarios.rank_steps import run_rank

        result = run_ranks(run_rank, (command,), len(command["ranks"]), OneNode())
        print(json.dumps({"ended": has_succeeded(result)}), flush=True)


class SeededMicroBatches:
    """Takes the place of `MicroBatches`, and of its samples: one micro-batch per seed, then nothing until told."""

    def __init__(self, state, accumulator, seeds: list[int], poisoned: bool, scale: float | None):
        self.scale = scale
        self.state, self.accumulator, self.seeds, self.poisoned = state, accumulator, seeds, poisoned
        self.samples, self.samples_computed, self.samples_per_second = self, 0, 1.0
        self._left: list[int] = []
        self._step = -1

    def compute(self, step: int) -> int:
        if step != self._step:
            self._step, self._left = step, list(self.seeds)
            if self.scale is not None and step == 0:  # as if there had been overflows since the last step
                self.accumulator.scale.value = self.scale
        if not self._left:
            time.sleep(0.001)
            return 0
        self.accumulator.add(loss_of(self.state, self._left.pop(0) + 100 * (step + 1)), MICRO_BATCH)
        if self.poisoned:
            self.state.parameters[0].grad[0] = float("inf")
        self.samples_computed += MICRO_BATCH
        return MICRO_BATCH

    def keep_up(self, others: float) -> None:
        """Text has no place here."""

    join_others = keep_up

    def take_wait(self) -> float:
        return 0.5

    def save(self) -> None:
        """Nothing to keep."""


def run_rank(command: dict) -> None:
    """One rank, the leader if it is the first."""
    die_with_parent(os.getppid())
    torch.set_num_threads(1)
    rank, ranks = int(os.environ["RANK"]), len(command["ranks"])
    store = connect_store(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
    family, orders = Family(store, rank, ranks), Orders(PrefixStore("orders", store), ranks)
    state = new_state(load_spec(Path(command["spec"])))
    if rank:  # the leader's parameters count
        with torch.no_grad():
            for parameter in state.parameters:
                parameter.add_(1.0)
    own_scale = command["scales"][rank] if "scales" in command else None
    scale = LossScale() if own_scale else None
    accumulator = Accumulator(state.parameters, scale)
    poisoned = command.get("poisoned") == rank
    batches = SeededMicroBatches(state, accumulator, command["ranks"][rank], poisoned, own_scale)
    facts = {"rank": rank}
    if rank == 0:
        leading = lead_in_swarm if "initial_peers" in command else lead
        facts |= leading(
            command, state, batches, OtherRanks(orders, family, lambda: meet(store, rank, ranks))
        )
    else:
        meet(store, rank, ranks)
        Follower(orders, family, batches, Exchange(state.parameters), {}).run()
    if scale is not None:
        facts["scale"] = scale.value
    torch.save(([p.detach() for p in state.parameters], facts), Path(command["folder"]) / f"rank-{rank}.pt")


def meet(store, rank: int, ranks: int) -> None:
    open_group(store, CPU, rank, ranks)


def lead(command: dict, state, batches: SeededMicroBatches, followers: Followers) -> dict:
    """Make the steps; returns what the leader learned."""
    accumulator = batches.accumulator
    followers.meet(state.parameters, accumulator)
    # a poisoned rank counts its samples until the sums are looked at
    everything = MICRO_BATCH * sum(map(len, command["ranks"]))
    buffers = [torch.zeros(parameter.shape) for parameter in state.parameters]
    samples = []
    for step in range(command["steps"]):
        followers.train(state, Surroundings)
        while accumulator.samples + followers.samples < everything:
            batches.compute(step)
        followers.collect(accumulator)
        samples.append(accumulator.samples)
        accumulator.take().mean_into(buffers)
        state.apply_gradients(buffers, f"{step + 1:x}")
    followers.train(state, Surroundings)
    followers.end()
    return {"samples": samples, "computed": followers.samples_computed, "waited": followers.waited}


def lead_in_swarm(command: dict, state, batches: SeededMicroBatches, followers: Followers) -> dict:
    """The same beside one other participant: hivemind first, then the ranks, as in `peer join`."""
    multiprocessing.set_start_method("fork", force=True)
    accumulator = batches.accumulator
    member = enter_swarm(Path(command["folder"]), command["initial_peers"], state, accumulator)
    stepper = stepper_for(member.global_step, accumulator)
    followers.meet(state.parameters, accumulator)
    print(json.dumps({"entered": True}), flush=True)
    everything = MICRO_BATCH * sum(map(len, command["ranks"]))
    groups, samples = [], []
    for step in range(command["steps"]):
        followers.train(state, Surroundings)
        while accumulator.samples + followers.samples < everything:
            batches.compute(step)
        followers.collect(accumulator)
        member.presence.update(samples=accumulator.samples)
        samples.append(accumulator.samples)
        wait_for_members(member.presence, state, 2)
        stepper.begin()
        report = stepper.take_report(wait=True)
        groups.append(report.group if report else 0)
    followers.train(state, Surroundings)
    followers.end()
    member.leave()
    return {"samples": samples, "groups": groups}


if __name__ == "__main__":
    main()
