"""A storm: a real swarm on one machine whose peers are killed, frozen, cut off and told to go, and what it costs.

    python -m tests.scenarios.storm --peers 4 --minutes 5 --kill-every 30 --seed 1

Runs the storm, then a calm run of the same length, and prints what the storm cost against it. Every peer has a
network namespace of its own where that is possible (Linux, root, iproute2). `--json` keeps everything that was seen,
in the form that `coordinator simulate --compare` reads. Exits with 1 if something was lost that must not be.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_prep.builtin import iter_documents
from data_prep.prepare import prepare_corpus
from swarm.spec import RunSpec, load_spec
from tests.scenarios.network import Network
from tests.scenarios.storm_measures import Observation, compare, describe
from tests.scenarios.swarm_under_test import (
    ROOT,
    SwarmUnderTest,
    kill_group,
    kill_main,
    signal_family,
    wait_for_leftovers,
)
from tests.scenarios.weather import Disturbance, Gust, forecast
from tests.spec_toml import spec_toml

RESTART_SECONDS = 2.0
LOOK_SECONDS = 0.1
SETTLING_DEADLINE_SECONDS = 120.0


@dataclass
class StormOptions:
    """One storm; `every` is the mean time between two disturbances of a kind, empty for a calm run."""

    spec: Path
    peers: int = 4
    seconds: float = 300.0
    seed: int = 1
    grace: float = 30.0
    silence: float = 15.0
    every: dict[Disturbance, float] = field(default_factory=dict)


class Storm:
    """Runs one swarm through its weather."""

    def __init__(self, options: StormOptions, folder: Path, network: Network | None):
        self.options, self.folder, self.network = options, folder, network
        self.swarm = SwarmUnderTest(folder, options.spec, network=network)
        self.peers: dict[str, subprocess.Popen[bytes]] = {}
        self.coordinator: subprocess.Popen[bytes] | None = None
        self.log: list[dict[str, Any]] = []
        self._silent: set[str] = set()
        self._awaited: set[str] = set()
        self._started: dict[str, float] = {}
        self._later: list[tuple[float, Any]] = []
        self._began = 0.0

    def run(self) -> Observation:
        """The whole storm, and a calm end in which everyone comes together again."""
        self._start_coordinator()
        for index in range(self.options.peers):
            self._start_peer(f"peer-{index}")
        self.swarm.wait_for(lambda: self._together(after=0), "a global step of all", deadline=240)
        self._began = time.time()
        gusts = forecast(self.options.every, self.options.seconds, self.options.seed)
        while (now := time.time() - self._began) < self.options.seconds:
            while gusts and gusts[0].t <= now:
                self._blow(gusts.pop(0))
            self._do_what_is_due(now)
            self._restart_the_ended()
            time.sleep(LOOK_SECONDS)
        ended = time.time()
        return self._end(ended, self._settle())

    def _blow(self, gust: Gust) -> None:
        if gust.kind is Disturbance.COORDINATOR_KILL:
            self._kill_coordinator()
        elif gust.kind is Disturbance.SPLIT:
            self._split()
        elif there := [name for name, peer in self.peers.items() if self._is_well(name, peer)]:
            name = there[int(gust.lot * len(there))]
            self._note(gust.kind.value, name)
            getattr(self, f"_{gust.kind.value}")(name, self.peers[name])

    def _kill(self, name: str, process: subprocess.Popen[bytes]) -> None:
        kill_group(process)
        self._start_later(name)

    def _kill_main(self, name: str, process: subprocess.Popen[bytes]) -> None:
        kill_main(process)
        self._start_later(name)

    def _leave(self, name: str, process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGTERM)
        self._silent.add(name)
        self._awaited.add(name)
        self._when_ended(name, process)

    def _when_ended(self, name: str, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            self._in(LOOK_SECONDS, lambda: self._when_ended(name, process))
            return
        self._silent.discard(name)
        self._note("left", name, code=process.returncode)
        self._start_later(name)

    def _freeze(self, name: str, process: subprocess.Popen[bytes]) -> None:
        signal_family(process, signal.SIGSTOP)
        self._silent.add(name)
        self._in(self.options.silence, lambda: self._resume(name, process))

    def _resume(self, name: str, process: subprocess.Popen[bytes]) -> None:
        signal_family(process, signal.SIGCONT)
        self._silent.discard(name)
        self._note("resume", name)

    def _cut(self, name: str, _process: subprocess.Popen[bytes]) -> None:
        network, host = self._require_network(), self._host(name)
        network.cut(host)
        self._silent.add(name)
        self._in(self.options.silence, lambda: self._mend(name))

    def _mend(self, name: str) -> None:
        self._require_network().mend(self._host(name))
        self._silent.discard(name)
        self._note("heal", name)

    def _split(self) -> None:
        self._require_network().split()
        self._note("split", None)
        self._in(self.options.silence, self._heal)

    def _heal(self) -> None:
        self._require_network().heal()
        self._note("heal", None)

    def _kill_coordinator(self) -> None:
        if self.coordinator is None:
            return
        port = self.swarm.join_line().split("/tcp/")[1].split("/")[0]
        kill_group(self.coordinator)
        self.coordinator = None
        self._note("coordinator_kill", None)
        self._in(RESTART_SECONDS, lambda: self._start_coordinator(port))

    def _start_coordinator(self, port: str | None = None) -> None:
        address = self.network.address(0) if self.network is not None else "127.0.0.1"
        listen = ("--host-maddrs", f"/ip4/{address}/tcp/{port or 0}")
        line = self.swarm.run_dir / "join.txt"
        kept = line.read_text() if line.exists() else None
        self.coordinator = self.swarm.start_coordinator(listen=listen, wait=port is None)
        if kept is not None:
            line.write_text(kept)  # its address does not change, and peers may be started meanwhile
        self._note("coordinator_start", None)

    def _start_peer(self, name: str) -> None:
        self._note("start", name)
        self._awaited.discard(name)
        self._started[name] = time.time()
        options = ("--grace", str(self.options.grace))
        self.peers[name] = self.swarm.start_peer(name, *options, host=self._host(name))

    def _restart_the_ended(self) -> None:
        """A peer that could not join, because nobody could be reached, is started again as a supervisor would."""
        for name, process in self.peers.items():
            if process.poll() is not None and name not in self._awaited:
                self._note("gave up", name, code=process.returncode)
                self._start_later(name)

    def _start_later(self, name: str) -> None:
        self._awaited.add(name)
        self._in(RESTART_SECONDS, lambda: self._start_peer(name))

    def _settle(self) -> dict[str, Any]:
        """End every disturbance, wait until everyone steps together again, and compare their states."""
        while self._later:
            self._do_what_is_due(time.time() - self._began)
            time.sleep(LOOK_SECONDS)
        before = self._step()
        self.swarm.wait_for(
            lambda: self._together(after=before), "a global step of all", deadline=SETTLING_DEADLINE_SECONDS
        )
        return self._probe()

    def _probe(self) -> dict[str, Any]:
        address = next(word for word in self.swarm.join_line().split() if word.startswith("/ip4/"))
        peers = [peer["peer_id"] for peer in self.swarm.status()["peers"] if peer["name"] in self.peers]
        vocabulary = json.loads((self.swarm.run_dir / "checkpoints/latest/config.json").read_text())[
            "vocab_size"
        ]
        place = self.network.on(0) if self.network is not None else []
        command = [*place, sys.executable, "-m", "tests.scenarios.state_probe", str(self.options.spec)]
        answer = subprocess.run(
            [*command, str(vocabulary), address, *peers],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if answer.returncode:
            raise RuntimeError(f"the states could not be compared: {answer.stderr}")
        return json.loads(answer.stdout.splitlines()[-1])

    def _end(self, ended: float, difference: dict[str, Any]) -> Observation:
        status = self.swarm.status()
        self.swarm.remember_processes()
        self.swarm.end()
        lines = {name: self.swarm.events(name) for name in self.peers}
        return Observation(
            spec=load_spec(self.options.spec),
            began=self._began,
            seconds=ended - self._began,
            grace=self.options.grace,
            log=self.log,
            lines=lines,
            silence=self.options.silence,
            status=status,
            totals=json.loads((self.swarm.run_dir / "totals.json").read_text())["all"],
            checkpoints=[
                json.loads(path.read_text())
                for path in sorted(self.swarm.run_dir.glob("checkpoints/step-*/manifest.json"))
            ],
            difference=difference,
            leftovers=wait_for_leftovers(self.swarm),
        )

    def _together(self, after: int) -> bool:
        """Whether every peer has taken part in one and the same global step of them all after that one."""
        steps = [
            {
                event["global_step"]
                for event in self.swarm.events(name, "step")
                if event["global_step"] > after and event["group"] == len(self.peers)
            }
            for name in self.peers
        ]
        return bool(set.intersection(*steps))

    def _is_well(self, name: str, process: subprocess.Popen[bytes]) -> bool:
        synced = [event for event in self.swarm.events(name, "synced") if event["time"] > self._started[name]]
        return process.poll() is None and name not in self._silent and bool(synced)

    def _step(self) -> int:
        return self.swarm.status().get("global_step", 0)

    def _host(self, name: str) -> int:
        return 1 + int(name.removeprefix("peer-"))

    def _note(self, kind: str, peer: str | None, code: int = 0) -> None:
        self.swarm.remember_processes()
        self.log.append({"time": time.time(), "kind": kind, "peer": peer, "code": code})
        print(f"{time.strftime('%H:%M:%S')} step {self._step():5d}  {kind} {peer or ''}", file=sys.stderr)

    def _in(self, seconds: float, action: Any) -> None:
        self._later.append((time.time() - self._began + seconds, action))

    def _do_what_is_due(self, now: float) -> None:
        due = [entry for entry in self._later if entry[0] <= now]
        self._later = [entry for entry in self._later if entry[0] > now]
        for _time, action in due:
            action()

    def _require_network(self) -> Network:
        if self.network is None:
            raise RuntimeError("cutting links needs network namespaces: Linux, root and iproute2")
        return self.network


@contextlib.contextmanager
def running(options: StormOptions, folder: Path) -> Iterator[Storm]:
    """A storm whose processes and network are gone afterwards, whatever happened."""
    network = Network(options.peers + 1) if Network.available() else None
    storm = Storm(options, folder, network)
    try:
        yield storm
    finally:
        for process in storm.peers.values():
            signal_family(process, signal.SIGCONT)
        storm.swarm.end()
        if network is not None:
            network.close()


def endless(spec_path: Path, folder: Path) -> Path:
    """A copy of a spec whose run does not end before the storm does; checkpoints often enough to compare losses."""
    spec = load_spec(spec_path)
    values = spec.model_dump(mode="json")
    values["training"]["total_steps"] = 100_000
    values["checkpoints"] |= {"every_steps": 10, "keep": 10_000}
    values["data"]["source"] = str(prepared(spec, spec_path.parent, folder))
    path = folder / "storm.toml"
    path.write_text(spec_toml(values))
    return path


def prepared(spec: RunSpec, base: Path, folder: Path) -> Path:
    """Tokenizer, shards and held-out set of a spec, made once for storm and calm."""
    if spec.data.source != "builtin":
        return (base / spec.data.source).resolve()
    data = spec.data
    prepare_corpus(
        iter_documents(),
        folder / "data",
        vocab_size=data.vocab_size,
        sequence_length=data.sequence_length,
        heldout_fraction=data.heldout_fraction,
        heldout_rows=data.heldout_rows,
        seed=spec.seed,
        progress=lambda words: print(words, file=sys.stderr),
    )
    return folder / "data"


def main() -> int:
    """Run storm and calm as the command line says."""
    options, calm, output = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="artel-storm-") as temporary:
        folder = Path(temporary)
        options.spec = endless(options.spec, folder)
        (folder / "storm").mkdir()
        with running(options, folder / "storm") as storm:
            observed = storm.run()
        if output is not None:
            output.write_text(observed.report_json(" ".join(sys.argv)))
        lines, failures = describe(observed)
        print("\n".join(lines))
        if calm:
            options.every = {}
            (folder / "calm").mkdir()
            with running(options, folder / "calm") as quiet:
                lines, more = compare(observed, quiet.run())
            print("\n".join(lines))
            failures += more
    for failure in failures:
        print(f"FAILED: {failure}")
    return 1 if failures else 0


def parse_arguments() -> tuple[StormOptions, bool, Path | None]:
    """(storm, whether a calm run follows, where to write the JSON)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", type=Path, default=ROOT / "examples" / "demo.toml")
    parser.add_argument("--peers", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--grace", type=float, default=30.0, help="seconds a peer may take to leave")
    parser.add_argument(
        "--silence", type=float, default=15.0, help="seconds that a freeze, cut or split lasts"
    )
    for kind in Disturbance:
        parser.add_argument(
            f"--{kind.value.replace('_', '-')}-every", type=float, metavar="SECONDS", dest=kind.value
        )
    parser.add_argument("--no-calm", action="store_true", help="do not run the calm run")
    parser.add_argument("--json", type=Path, help="write everything that was seen to this file")
    given = parser.parse_args()
    every = {kind: getattr(given, kind.value) for kind in Disturbance if getattr(given, kind.value)}
    options = StormOptions(
        given.spec, given.peers, 60 * given.minutes, given.seed, given.grace, given.silence, every
    )
    return options, not given.no_calm, given.json


if __name__ == "__main__":
    sys.exit(main())
