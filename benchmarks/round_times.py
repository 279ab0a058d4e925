"""Times of real averaging rounds between processes of this machine: what `coordinator simulate` is calibrated with.

    python -m benchmarks.round_times [--peers 6] [--repeats 5] [--hidden 64 192 512] [--output timings.json]

Starts peers with the project's own averager and measures, for every group size and model size: finding the group,
exchanging gradients and parameters, a newcomer's state download, an optimizer update, a lease's way through the DHT,
and rounds in which somebody is missing or is killed. Prints medians; `--output` writes the calibration file.

Compared with: the time that copying the same bytes once takes in the same process, as a yardstick of the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import platform
import shlex
import signal
import statistics
import sys
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks.interleaved import print_table
from coordinator.simulation.calibration import (
    Calibration,
    MeasuredDownload,
    MeasuredRecovery,
    MeasuredRound,
    MeasuredUpdate,
)
from coordinator.simulation.sizes import transfer_sizes
from swarm.admission import Admission
from swarm.averager import SwarmAverager
from swarm.dht import RecordBoard, open_dht
from swarm.identity import Identity
from swarm.introductions import addresses_to_publish
from swarm.records import Lease
from swarm.rounds import RoundFailed, RoundKind
from swarm.spec import AveragingSpec, DataSpec, ModelSpec, RunSpec
from swarm.states import PeerState
from swarm.training_state import TrainingState, build_model

ANSWER_SECONDS = 90.0
KILL_AFTER_SECONDS = (0.05, 0.1, 0.15)


class TimedAverager(SwarmAverager):
    """Measures the exchange apart from finding the group; the clock is read in the averager's process."""

    def __init__(self, *args: Any, **kwargs: Any):
        self.exchange_seconds = multiprocessing.Value("d", 0.0)
        self.die_after = multiprocessing.Value("d", float("inf"))
        super().__init__(*args, **kwargs)

    async def _aggregate_with_group(self, *args: Any, **kwargs: Any) -> Any:
        started = time.monotonic()
        if self.die_after.value < float("inf"):
            asyncio.get_running_loop().call_later(self.die_after.value, os.killpg, 0, signal.SIGKILL)
        try:
            return await super()._aggregate_with_group(*args, **kwargs)
        finally:
            self.exchange_seconds.value = time.monotonic() - started


class Participant:
    """Lives in a process of its own and does as it is told through a pipe."""

    def __init__(self, spec: RunSpec, folder: str, initial_peers: list[str]):
        identity, path = Identity.generate(), Path(tempfile.mkdtemp(dir=folder)) / "identity.key"
        identity.save(path)
        self.spec, self.folder = spec, folder
        self.dht = open_dht(
            identity_path=path, initial_peers=initial_peers, admission=self.admission(identity)
        )
        self.state = TrainingState(spec, build_model(spec, vocab_size=spec.data.vocab_size, pad_token_id=0))
        self.buffers = [torch.zeros(parameter.shape) for parameter in self.state.parameters]
        self.averager = TimedAverager(
            self.buffers,
            self.dht,
            prefix=spec.run_id,
            spec=spec.averaging,
            state_source=self.state.held,
        )
        self.board = RecordBoard(self.dht, spec.run_id, identity)
        self.peer_id = identity.peer_id

    def admission(self, identity: Identity) -> Admission:
        """Who may take part."""
        return Admission(self.spec.run_id, ())

    def round(self, kind: str, step: int, group_size: int, die_after: float | None = None) -> dict[str, Any]:
        """Average; how long, and what came of it; or be killed so many seconds into the exchange."""
        if die_after is not None:
            self.averager.die_after.value = die_after
        # parameters of one swarm are nearly equal, gradients are not
        rng = torch.Generator().manual_seed(step) if kind == "state" else None
        for buffer in self.buffers:
            buffer.normal_(generator=rng)
        started = time.monotonic()
        try:
            result = self.averager.run_round(
                RoundKind[kind.upper()],
                step=step,
                branch="",
                group_size=group_size,
                weight=1.0,
                samples=1,
                weights={},
            )
        except RoundFailed as error:
            return {"total": time.monotonic() - started, "failed": str(error)}
        total, exchange = time.monotonic() - started, self.averager.exchange_seconds.value
        return {
            "total": total,
            "matchmaking": total - exchange,
            "allreduce": exchange,
            "complete": result.complete,
            "group": result.group_size,
        }

    def download(self, donor: str) -> dict[str, Any]:
        """Fetch a donor's state."""
        started = time.monotonic()
        self.averager.download_state(donor, layouts=self.state.layouts, timeout=60)
        return {"total": time.monotonic() - started}

    def update(self) -> dict[str, Any]:
        """One step of the optimizer, and one copy of the same values for comparison."""
        started = time.monotonic()
        self.state.apply_gradients(self.buffers, "")
        updated = time.monotonic()
        self.state.copy_parameters_to(self.buffers)
        return {"total": updated - started, "copy": time.monotonic() - updated}

    def lease(self) -> dict[str, Any]:
        """Publish a lease and read everyone's."""
        now = time.time()
        lease = Lease(
            run_id=self.spec.run_id,
            issued=now,
            expires=now + 30,
            state=PeerState.TRAINING,
            step=0,
            samples=1,
            samples_per_second=1.0,
            client_mode=False,
            addresses=addresses_to_publish(self.dht),
            ticket=self.dht.admission.own_ticket,
        )
        started = time.monotonic()
        self.board.publish(lease)
        self.board.read(Lease)
        return {"total": time.monotonic() - started}


def live(
    pipe: Connection, spec: RunSpec, folder: str, initial_peers: list[str], kind: type[Participant]
) -> None:
    """Main function of a participant's process."""
    os.setpgrp()
    # a spawned process would spawn its own children too; hivemind's must be forked
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    participant = kind(spec, folder, initial_peers)
    addresses = [str(address) for address in participant.dht.get_visible_maddrs()]
    pipe.send({"peer_id": participant.peer_id, "addresses": addresses})
    while (command := pipe.recv()) is not None:
        name = command.pop("do")
        pipe.send(getattr(participant, name)(**command))
    os._exit(0)


class Peer:
    """The parent's end of a participant."""

    def __init__(
        self,
        spec: RunSpec,
        folder: str,
        initial_peers: list[str],
        kind: type[Participant] = Participant,
    ):
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        started = time.monotonic()
        self.process = context.Process(target=live, args=(theirs, spec, folder, initial_peers, kind))
        self.process.start()
        theirs.close()  # so that its end is seen here when the process ends
        hello = self.hear()
        self.join_seconds = time.monotonic() - started
        self.peer_id, self.addresses = hello["peer_id"], hello["addresses"]

    def hear(self) -> dict[str, Any]:
        """The answer to the last command."""
        if self.pipe.poll(ANSWER_SECONDS):
            return self.pipe.recv()
        self.kill()
        raise TimeoutError(f"a peer did not answer within {ANSWER_SECONDS:.0f} s")

    def ask(self, do: str, **command: Any) -> dict[str, Any]:
        """Tell and hear."""
        self.pipe.send({"do": do, **command})
        return self.hear()

    def kill(self) -> None:
        """End the process and its children at once."""
        if self.process.is_alive():
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.join()


class Swarm:
    """Peers of one model size, and all measurements made with them."""

    def __init__(self, spec: RunSpec):
        self.spec, self.sizes, self.step = spec, transfer_sizes(spec), 0
        self.peers: list[Peer] = []

    def start(self, size: int, folder: str) -> None:
        """Start so many peers, one after the other."""
        for _number in range(size):
            contact = self.peers[0].addresses if self.peers else []
            self.peers.append(Peer(self.spec, folder, contact))

    def rounds(self, repeats: int) -> list[MeasuredRound]:
        """Complete rounds of every kind and group size, in turns; incomplete ones are told and left out."""
        measured = []
        for _repeat in range(repeats):
            for group_size in range(2, len(self.peers) + 1):
                for kind in ("gradients", "state"):
                    answers = self._round(kind, self.peers[:group_size], group_size)
                    if all(answer.get("complete") and answer["group"] == group_size for answer in answers):
                        measured.append(self._measured(kind, group_size, answers))
                    else:
                        print(f"left out a round of {group_size}: {answers[0]}", file=sys.stderr)
        return measured

    def recoveries(self) -> list[MeasuredRecovery]:
        """Rounds with somebody missing; the last peers do not survive this.

        An exchange that was over before the blow is left out.
        """
        first, second, *others = self.peers
        found = [
            self._recovery("alone", 2, self._round("gradients", [first], 2)),
            self._recovery("absent", 3, self._round("gradients", [first, second], 3)),
        ]
        for victim, delay in zip(reversed(others), KILL_AFTER_SECONDS, strict=False):
            command = {"do": "round", "kind": "gradients", "step": self.step, "group_size": 3}
            victim.pipe.send({**command, "die_after": delay})
            for peer in (first, second):
                peer.pipe.send(command)
            answers = [peer.hear() for peer in (first, second)]
            self.step += 1
            if not all(answer.get("complete") for answer in answers):
                found.append(self._recovery("killed", 3, answers))
        return found

    def end(self) -> None:
        """Kill what is still there."""
        for peer in self.peers:
            peer.kill()

    def _round(self, kind: str, peers: list[Peer], group_size: int) -> list[dict[str, Any]]:
        self.step += 1
        for peer in peers:
            peer.pipe.send({"do": "round", "kind": kind, "step": self.step, "group_size": group_size})
        return [peer.hear() for peer in peers]

    def _measured(self, kind: str, group_size: int, answers: list[dict[str, Any]]) -> MeasuredRound:
        return MeasuredRound(
            kind=kind,
            group_size=group_size,
            bytes=self.sizes.gradients if kind == "gradients" else self.sizes.parameters,
            seconds_matchmaking=max(round(answer["matchmaking"], 4) for answer in answers),
            seconds_allreduce=max(round(answer["allreduce"], 4) for answer in answers),
        )

    def _recovery(self, kind: str, group_size: int, answers: list[dict[str, Any]]) -> MeasuredRecovery:
        averaging = self.spec.averaging
        return MeasuredRecovery(
            kind=kind,
            group_size=group_size,
            seconds=max(round(answer["total"], 3) for answer in answers),
            matchmaking_time=averaging.matchmaking_time,
            request_timeout=averaging.request_timeout,
            next_chunk_timeout=averaging.next_chunk_timeout,
        )


def spec_of(hidden_size: int) -> RunSpec:
    """A run whose model has this width; timeouts as in the demo."""
    return RunSpec(
        name=f"round-times-{hidden_size}",
        model=ModelSpec(
            hidden_size=hidden_size,
            intermediate_size=2 * hidden_size,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=512,
        ),
        data=DataSpec(vocab_size=4096, sequence_length=48),
        averaging=AveragingSpec(
            matchmaking_time=2.5, request_timeout=1.0, next_chunk_timeout=5.0, allreduce_timeout=20.0
        ),
    )


def measure(hidden_size: int, peers: int, repeats: int, folder: str) -> dict[str, list[Any]]:
    """Everything about one model size."""
    swarm = Swarm(spec_of(hidden_size))
    try:
        swarm.start(peers, folder)
        donor, newcomer = swarm.peers[0], swarm.peers[1]
        found: dict[str, list[Any]] = {"joins": [round(peer.join_seconds, 3) for peer in swarm.peers]}
        found["rounds"] = swarm.rounds(repeats)
        downloads = [newcomer.ask("download", donor=donor.peer_id)["total"] for _ in range(repeats)]
        found["downloads"] = [
            MeasuredDownload(bytes=swarm.sizes.state, seconds=round(seconds, 4)) for seconds in downloads
        ]
        updates = [donor.ask("update") for _ in range(repeats)]
        found["updates"] = [
            MeasuredUpdate(values=swarm.sizes.values, seconds=round(update["total"], 5)) for update in updates
        ]
        found["copies"] = [update["copy"] for update in updates]
        found["leases"] = [round(newcomer.ask("lease")["total"], 4) for _ in range(2 * repeats)]
        found["recoveries"] = swarm.recoveries()
        return found
    finally:
        swarm.end()


def describe(hidden_size: int, found: dict[str, list[Any]]) -> list[tuple[str, ...]]:
    """Rows of the printed table: medians by kind and group size."""
    sizes, copy = transfer_sizes(spec_of(hidden_size)), statistics.median(found["copies"])
    rows = []
    for kind, size in sorted({(one.kind, one.group_size) for one in found["rounds"]}):
        same = [one for one in found["rounds"] if (one.kind, one.group_size) == (kind, size)]
        exchange = statistics.median(one.seconds_allreduce for one in same)
        handshake = statistics.median(one.seconds_matchmaking for one in same)
        values = f"{sizes.values / 1e6:.2f} M"
        rows.append(
            (values, kind, str(size), f"{handshake:.3f}", f"{exchange:.3f}", f"{exchange / copy:.0f}x")
        )
    return rows


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, default=4, help="largest group, at least 3")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 192], help="model widths")
    parser.add_argument("--output", type=Path, help="write the calibration file here")
    given = parser.parse_args()
    load, together = os.getloadavg()[0], dict[str, list[Any]]()
    rows: list[tuple[str, ...]] = []
    with tempfile.TemporaryDirectory() as folder:
        for hidden_size in given.hidden:
            found = measure(hidden_size, max(3, given.peers), given.repeats, folder)
            rows += describe(hidden_size, found)
            for name, values in found.items():
                together.setdefault(name, []).extend(values)
    print_table(("values", "kind", "peers", "matchmaking s", "exchange s", "to one copy"), rows)
    for one in together["recoveries"]:
        print(f"{one.kind} of {one.group_size}: {one.seconds:.1f} s")
    if given.output:
        del together["copies"]
        calibration = Calibration(
            machine=f"{os.cpu_count()} cores {platform.machine()}, all peers on it, loopback, load {load:.1f} before",
            command=shlex.join(["python", "-m", "benchmarks.round_times", *sys.argv[1:]]),
            cores=os.cpu_count() or 1,
            shared_machine=True,
            **together,
        )
        given.output.write_text(calibration.model_dump_json(indent=1) + "\n", encoding="utf-8")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
