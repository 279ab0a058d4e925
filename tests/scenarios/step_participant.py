"""A real process that holds a training state and makes global steps as told, one JSON object in and out per line.

The first line is the setup: {"folder", "spec", "initial_peers"}; the answer is the peer id and addresses. Then:
{"compute": [seed, …]} accumulates one micro-batch per seed, {"step": group_size} waits for that many members and makes
a global step, {"begin": group_size} begins one and {"end": true} waits for it, {"hand_over": seconds} gives what was
accumulated to another one and withdraws, {"take_over": group_size} waits for such a gift, {"save": path} writes the
state's tensors.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from peer.accumulator import Accumulator
from peer.global_step import GlobalStep
from peer.hand_over import HandOverDesk, HandOverFailed, hand_over
from peer.presence import Description, Presence
from peer.stepper import BlockingStepper, stepper_for
from peer.suspension import SuspensionWatch
from swarm.admission import Admission
from swarm.averager import SwarmAverager
from swarm.dht import RecordBoard, TiedDHT, open_dht
from swarm.identity import Identity
from swarm.service import ServiceThread
from swarm.spec import RunSpec, load_spec
from swarm.states import PeerState
from swarm.training_state import TrainingState, build_model

VOCAB_SIZE = 64
MICRO_BATCH = 4
SEQUENCE = 12
DEADLINE_SECONDS = 120.0


def main() -> None:
    torch.set_num_threads(1)
    setup = json.loads(sys.stdin.readline())
    spec = load_spec(Path(setup["spec"]))
    state = new_state(spec)
    accumulator = Accumulator(state.model_parameters)
    member = enter_swarm(Path(setup["folder"]), setup["initial_peers"], state, accumulator)
    dht, presence, global_step = member.dht, member.presence, member.global_step
    buffers = global_step.buffers
    stepper = stepper_for(global_step, accumulator)
    service = ServiceThread(dht)
    desk = HandOverDesk(presence, [buffer.shape for buffer in buffers])
    desk.open(service)
    say(peer_id=presence.peer_id, addresses=[str(address) for address in dht.get_visible_maddrs()])
    for line in sys.stdin:
        command = json.loads(line)
        if "compute" in command:
            for seed in command["compute"]:
                accumulator.add(loss_of(state, seed), MICRO_BATCH)
            presence.update(samples=accumulator.samples)
            say(samples=accumulator.samples)
        elif "step" in command:
            wait_for_members(presence, state, command["step"])
            stepper.begin()
            say(**end_step(stepper, state))
        elif "begin" in command:
            wait_for_members(presence, state, command["begin"])
            stepper.begin()
            say(busy=stepper.busy)
        elif "end" in command:
            say(**end_step(stepper, state))
        elif "hand_over" in command:
            wait_for_members(presence, state, 2)
            samples = accumulator.samples
            try:
                heir = hand_over(service, presence, accumulator, buffers, command["hand_over"])
            except HandOverFailed as error:
                heir = f"no answer: {error}"
            say(samples=samples, heir=heir, left=accumulator.samples)
            presence.withdraw()
        elif "take_over" in command:
            wait_for_members(presence, state, command["take_over"])
            say(ready=True)
            say(samples=wait_for_gift(desk, accumulator, state))
            presence.update(samples=accumulator.samples)
        else:
            torch.save(tuple(state.snapshot()), command["save"])
            say(saved=command["save"])
    member.leave()
    os._exit(0)


def end_step(stepper: BlockingStepper, state: TrainingState) -> dict[str, object]:
    report = stepper.take_report(wait=True)
    state.refresh_model()
    return {"made": report is not None, "group": report.group if report else 0, "step": state.step}


@dataclass
class Member:
    """A participant's part in the swarm."""

    dht: TiedDHT
    presence: Presence
    global_step: GlobalStep

    def leave(self) -> None:
        """Withdraw, and end what hivemind has started."""
        self.presence.withdraw()
        self.global_step.averager.shutdown()
        self.dht.shutdown()


def enter_swarm(
    folder: Path, initial_peers: list[str], state: TrainingState, accumulator: Accumulator
) -> Member:
    """Take part under an identity of our own; training from now on."""
    spec, identity = state.spec, Identity.generate()
    path = Path(tempfile.mkdtemp(dir=folder)) / "identity.key"
    identity.save(path)
    dht = open_dht(identity_path=path, initial_peers=initial_peers, admission=Admission(spec.run_id, ()))
    buffers = [torch.zeros(parameter.shape) for parameter in state.parameters]
    averager = SwarmAverager(buffers, dht, prefix=spec.run_id, spec=spec.averaging, state_source=state.held)
    presence = Presence(RecordBoard(dht, spec.run_id, identity), spec, Description("test", "0", "cpu"))
    presence.start()
    presence.update(state=PeerState.TRAINING)
    suspension = SuspensionWatch(spec.leases.expiration)
    suspension.start()
    return Member(dht, presence, GlobalStep(state, accumulator, averager, buffers, presence, suspension))


def new_state(spec: RunSpec) -> TrainingState:
    """The state that every participant starts from."""
    return TrainingState(spec, build_model(spec, vocab_size=VOCAB_SIZE, pad_token_id=0))


def loss_of(state: TrainingState, seed: int) -> torch.Tensor:
    """Masked-LM loss of the made-up micro-batch with this seed."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(5, VOCAB_SIZE, (MICRO_BATCH, SEQUENCE), generator=rng)
    masked = torch.rand(labels.shape, generator=rng) < 0.3
    masked[:, 0] = True
    state.model.train()
    output = state.model(input_ids=labels.masked_fill(masked, 4), labels=labels.masked_fill(~masked, -100))
    return output.loss


def wait_for_members(presence: Presence, state: TrainingState, count: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while len(presence.view.members_at(state.step, state.branch)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{count} members at step {state.step} did not show up")
        time.sleep(0.05)


def wait_for_gift(desk: HandOverDesk, accumulator: Accumulator, state: TrainingState) -> int:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (samples := desk.settle(accumulator, state.step, state.branch)):
        if time.monotonic() > deadline:
            raise TimeoutError("nothing was handed over")
        time.sleep(0.05)
    return samples


def say(**fields: object) -> None:
    print(json.dumps(fields), flush=True)


if __name__ == "__main__":
    main()
