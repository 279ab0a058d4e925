"""A whole swarm of real processes for one test: a coordinator and peers, started by their command lines.

Everything it starts is ended with it, and `leftovers` names what outlived its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from swarm.spec import load_spec
from tests.scenarios.network import Network

ROOT = Path(__file__).parents[2]
LOOPBACK = ("--host-maddrs", "/ip4/127.0.0.1/tcp/0")
DEADLINE_SECONDS = 90.0
MARK = "ARTEL_TEST_SWARM"


class SwarmUnderTest:
    """Starts and watches the processes of one run.

    :param network: hosts to run them on; loopback of this machine without it

    >>> swarm = SwarmUnderTest(tmp_path, spec_path)                                     # doctest: +SKIP
    >>> swarm.start_coordinator(); peer = swarm.start_peer("first")                      # doctest: +SKIP
    >>> swarm.wait_for(lambda: swarm.status()["global_step"] >= 3, "three global steps") # doctest: +SKIP
    """

    def __init__(self, folder: Path, spec_path: Path, network: Network | None = None):
        self.folder, self.spec_path, self.network = folder, spec_path, network
        self.run_dir = folder / "run"
        self.mark = f"{os.getpid()}-{folder}"
        self.processes: list[subprocess.Popen[bytes]] = []
        self.coordinators: list[subprocess.Popen[bytes]] = []
        self.pids_seen: set[int] = set()

    def start_coordinator(
        self, *options: str, listen: tuple[str, ...] | None = None, host: int = 0, wait: bool = True
    ) -> subprocess.Popen[bytes]:
        """Start `coordinator run` and wait until it can be joined."""
        (self.run_dir / "join.txt").unlink(missing_ok=True)
        arguments = ["run", str(self.spec_path), "--run-dir", str(self.run_dir)]
        arguments += [*(listen or self._listen(host)), "--dashboard", "127.0.0.1:0", *options]
        process = self._start("coordinator.cli", arguments, "coordinator", host)
        self.coordinators.append(process)
        if wait:
            self.wait_for(lambda: (self.run_dir / "join.txt").exists(), "the join line", alive=process)
        return process

    def start_peer(
        self, name: str, *options: str, line: str | None = None, host: int = 0, program: str = "peer.cli"
    ) -> subprocess.Popen[bytes]:
        """Start the join line with `--json` and options; its events are in `events(name)`.

        :param program: module whose `main` is run instead of the real one
        """
        words = shlex.split(line or self.join_line())
        cache = ["--cache-dir", str(self.folder / "cache"), "--name", name, "--device", "cpu", "--json"]
        # the search for the best size would make every run another one
        size = ["--micro-batch-size", str(load_spec(self.spec_path).training.micro_batch_size)]
        return self._start(program, [*words[1:], *cache, *size, *self._listen(host), *options], name, host)

    def join_line(self) -> str:
        """What the coordinator hands out."""
        return (self.run_dir / "join.txt").read_text().strip()

    def status(self) -> dict[str, Any]:
        """The run as `coordinator status --json` would print it; empty before the first status."""
        try:
            return json.loads((self.run_dir / "status.json").read_bytes())
        except FileNotFoundError:
            return {}

    def events(self, name: str, kind: str | None = None) -> list[dict[str, Any]]:
        """What a peer has printed so far."""
        lines = (self.folder / f"{name}.out").read_text().splitlines(keepends=True)
        found = [json.loads(line) for line in lines if line.endswith("\n")]
        return [event for event in found if kind is None or event["event"] == kind]

    def steps(self, name: str) -> list[int]:
        """The global steps that a peer has taken part in."""
        return [event["global_step"] for event in self.events(name, "step")]

    def errors(self, name: str) -> str:
        """What a process has written to stderr."""
        return (self.folder / f"{name}.err").read_text()

    def wait_for(
        self,
        condition: Callable[[], object],
        what: str,
        *,
        deadline: float = DEADLINE_SECONDS,
        alive: subprocess.Popen[bytes] | None = None,
    ) -> None:
        """Wait until the condition holds; fail with everyone's last words if it does not in time."""
        end = time.monotonic() + deadline
        while not condition():
            if alive is not None and alive.poll() is not None:
                raise AssertionError(f"a process ended while waiting for {what}\n{self._last_words()}")
            if time.monotonic() > end:
                raise AssertionError(f"no {what} within {deadline:.0f} s\n{self._last_words()}")
            time.sleep(0.1)

    def end(self) -> None:
        """End everything, politely where it listens: peers first, so that the coordinator can take what they have."""
        peers = [process for process in self.processes if process not in self.coordinators]
        for generation in (peers, self.coordinators):
            for process in generation:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            for process in generation:
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    kill_group(process)

    def remember_processes(self) -> None:
        """Note who runs now, to look for what they leave behind when they have ended."""
        self.pids_seen |= {pid for pid, _command in _marked_processes(self.mark)}

    def leftovers(self) -> list[str]:
        """Processes that carry our mark although what we started has ended."""
        return [command for _pid, command in _marked_processes(self.mark)]

    def _listen(self, host: int) -> tuple[str, ...]:
        if self.network is None:
            return LOOPBACK
        return ("--host-maddrs", f"/ip4/{self.network.address(host)}/tcp/0")

    def _start(self, program: str, arguments: list[str], name: str, host: int) -> subprocess.Popen[bytes]:
        place = self.network.on(host) if self.network is not None else []
        code = f"from {program} import main; main()"
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", MARK: self.mark}
        with (self.folder / f"{name}.out").open("ab") as out, (self.folder / f"{name}.err").open("ab") as err:
            process = subprocess.Popen(
                [*place, sys.executable, "-c", code, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def _last_words(self) -> str:
        parts = []
        for path in sorted([*self.folder.glob("*.out"), *self.folder.glob("*.err")]):
            if text := path.read_text(errors="replace").strip():
                parts.append(f"--- {path.name}\n" + "\n".join(text.splitlines()[-15:]))
        return "\n".join(parts)


def resources_of(pids: set[int]) -> list[str]:
    """Sockets, locks and shared memory whose names tell that one of these processes made them."""
    places = (("/tmp", "artel-*-*.sock"), ("/tmp", "artel-*-*.lock"), ("/dev/shm", "torch_*_*"))
    found = (path for folder, pattern in places for path in Path(folder).glob(pattern))
    return sorted(str(path) for path in found if int(re.split("[-_]", path.name)[1]) in pids)


def wait_for_leftovers(swarm: SwarmUnderTest, deadline: float = 20.0) -> list[str]:
    """Processes and resources of an ended swarm that are still there when everybody had time to notice the end."""
    end = time.monotonic() + deadline
    while left := [*swarm.leftovers(), *resources_of(swarm.pids_seen)]:
        if time.monotonic() > end:
            return left
        time.sleep(0.1)
    return []


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """`kill -9` of a process and everything it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def kill_main(process: subprocess.Popen[bytes]) -> None:
    """`kill -9` of the main process alone, as the kernel does when memory runs out."""
    process.kill()
    process.wait()


def signal_family(process: subprocess.Popen[bytes], signum: int) -> None:
    """Send a signal to a process and all its descendants; libp2p's daemon has a process group of its own."""
    for pid in family(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signum)


def family(pid: int) -> list[int]:
    """A process and all its descendants."""
    return [pid, *_descendants(pid)]


def _descendants(pid: int) -> Iterator[int]:
    for listing in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):  # it has just ended
            for child in map(int, listing.read_text().split()):
                yield child
                yield from _descendants(child)


def _marked_processes(mark: str) -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if f"{MARK}={mark}".encode() in (entry / "environ").read_bytes():
                    state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                    if state != "Z":
                        yield int(entry.name), (entry / "cmdline").read_text().replace("\0", " ").strip()
            except OSError:
                continue  # it has just ended
