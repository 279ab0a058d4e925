"""From the start of a peer to its first global step: processor time and wall time by phase, in turns with hivemind.

    python -m benchmarks.peer_start [--starts 3]

Both join a swarm of their own whose state one other process holds, as a peer does that was killed: bundle and identity
are in the cache, the state comes from the swarm, and nobody else computes. Processor seconds are those of the process
and all its descendants. Phases end with the first child process (all is imported), `joined`, `synced` and `step`.
The competitor is `benchmarks.plain_hivemind_peer`: hivemind's Optimizer around an ALBERT of transformers. Its step has
no ratio: hivemind credits the peer that only serves the state with samples at its former speed, and so does not wait
for a whole batch; ours computes all of it.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import shlex
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.interleaved import print_table
from data_prep.builtin import iter_documents
from data_prep.prepare import prepare_corpus
from swarm.spec import load_spec
from tests.scenarios.swarm_under_test import LOOPBACK, ROOT, SwarmUnderTest, family
from tests.spec_toml import spec_toml

PHASES = ("imported", "joined", "synced", "step")
LOOK_SECONDS = 0.02
# enough for a tokenizer of the demo's size; how much text there is does not matter here
DOCUMENTS = 4000
DEADLINE_SECONDS = 600.0
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Moment:
    """Since the process began."""

    cpu: float
    wall: float


Start = dict[str, Moment]


def processor_seconds(pid: int) -> float:
    """Of a process and its descendants, those that have ended included."""
    ticks = 0
    for one in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[11:15]))
    return ticks / TICKS


def launch(program: str, arguments: list[str], out: Path) -> subprocess.Popen[bytes]:
    """`main` of a module, in a session of its own."""
    command = [sys.executable, "-c", f"from {program} import main; main()", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HIVEMIND_LOGLEVEL": "CRITICAL"}
    with out.open("wb") as stream:
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdout=stream,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def measured(program: str, arguments: list[str], out: Path) -> Start:
    """Start, wait for the first global step, kill; raises RuntimeError if the step does not come."""
    began = time.monotonic()
    process = launch(program, arguments, out)
    moments: Start = {}
    try:
        while PHASES[-1] not in moments:
            if process.poll() is not None or time.monotonic() - began > DEADLINE_SECONDS:
                raise RuntimeError(f"{program} came to {list(moments)} only: {out.read_text()[-500:]}")
            now = Moment(processor_seconds(process.pid), time.monotonic() - began)
            if "imported" not in moments and len(family(process.pid)) > 1:
                moments["imported"] = now
            for event in events(out):
                moments.setdefault(event, now)
            time.sleep(LOOK_SECONDS)
    finally:
        kill_family(process)
    return moments


def events(out: Path) -> list[str]:
    """The phases that a peer says have ended."""
    lines = [line for line in out.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [event for line in lines if (event := json.loads(line)["event"]) in PHASES]


def kill_family(process: subprocess.Popen[bytes]) -> None:
    """hivemind's daemon has outlived its parent before."""
    for pid in family(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def endless_demo(folder: Path) -> Path:
    """The demo's spec without an end, on a part of its text."""
    spec = load_spec(ROOT / "examples" / "demo.toml")
    data = spec.data
    prepare_corpus(
        itertools.islice(iter_documents(), DOCUMENTS),
        folder / "data",
        vocab_size=data.vocab_size,
        sequence_length=data.sequence_length,
        heldout_fraction=data.heldout_fraction,
        heldout_rows=data.heldout_rows,
        seed=spec.seed,
        progress=None,
    )
    values = spec.model_dump(mode="json", exclude_none=True)
    values["training"]["total_steps"] = 100_000
    values["data"]["source"] = str(folder / "data")
    (folder / "demo.toml").write_text(spec_toml(values))
    return folder / "demo.toml"


@contextlib.contextmanager
def our_swarm(folder: Path) -> Iterator[Callable[[], Start]]:
    """What starts one of our peers: a coordinator holds the state of a few steps that another peer has made."""
    (folder / "ours").mkdir()
    swarm = SwarmUnderTest(folder / "ours", endless_demo(folder))
    try:
        swarm.start_coordinator()
        first = swarm.start_peer("first", "--stop-after-steps", "2")
        swarm.wait_for(lambda: first.poll() is not None, "two global steps", deadline=DEADLINE_SECONDS)
        cache = [
            "--cache-dir",
            str(swarm.folder / "cache"),
            "--device",
            "cpu",
            "--json",
            "--micro-batch-size",
            "16",
        ]
        arguments = [*shlex.split(swarm.join_line())[1:], *cache, *LOOPBACK]
        yield lambda: measured("peer.cli", arguments, folder / "ours.out")
    finally:
        swarm.end()


@contextlib.contextmanager
def plain_swarm(folder: Path) -> Iterator[Callable[[], Start]]:
    """What starts one of hivemind's, beside one that serves its state."""
    program, out = "benchmarks.plain_hivemind_peer", folder / "resident.out"
    resident = launch(program, [], out)
    try:
        end = time.monotonic() + DEADLINE_SECONDS
        while "step" not in events(out):
            if time.monotonic() > end:
                raise RuntimeError("hivemind's first peer makes no step")
            time.sleep(LOOK_SECONDS)
        addresses = json.loads(out.read_text().splitlines()[0])["addresses"]
        yield lambda: measured(program, addresses, folder / "plain.out")
    finally:
        kill_family(resident)


def table(starts: dict[str, list[Start]]) -> None:
    """Medians by phase, and how many times as much hivemind's peer takes."""
    rows = []
    for phase in PHASES:
        median = {
            name: [statistics.median(getattr(one[phase], kind) for one in found) for kind in ("cpu", "wall")]
            for name, found in starts.items()
        }
        ours, plain = median["peer join"], median["hivemind"]
        ratios = [f"{theirs / own:.2f}" for theirs, own in zip(plain, ours, strict=True)]
        if phase == PHASES[-1]:
            ratios = ["", ""]
        rows.append((phase, *(f"{value:.1f}" for value in (ours[0], plain[0], ours[1], plain[1])), *ratios))
    header = (
        "until",
        "peer join: CPU s",
        "hivemind: CPU s",
        "peer join: s",
        "hivemind: s",
        "CPU ratio",
        "ratio",
    )
    print_table(header, rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--starts", type=int, default=3, help="of each; one more of each is not counted")
    starts_wanted = parser.parse_args().starts
    found: dict[str, list[Start]] = {"peer join": [], "hivemind": []}
    with tempfile.TemporaryDirectory(prefix="artel-start-") as temporary:
        folder = Path(temporary)
        with our_swarm(folder) as ours, plain_swarm(folder) as plain:
            competitors: dict[str, Callable[[], Start]] = {"peer join": ours, "hivemind": plain}
            for index in range(starts_wanted + 1):
                for name, start in competitors.items():
                    moments = start()
                    print(name, {phase: moments[phase] for phase in PHASES}, file=sys.stderr)
                    if index:
                        found[name].append(moments)
    table(found)


if __name__ == "__main__":
    main()
