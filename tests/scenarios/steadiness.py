"""Whether a run can be left alone: memory, open files and threads of every process over a long time.

    python -m tests.scenarios.steadiness --minutes 60

Starts a coordinator and two peers, looks at their processes once a minute, and prints how each count at the end
compares with the count after a tenth of the time, when everything has been allocated that ever should be.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.scenarios.storm import endless
from tests.scenarios.swarm_under_test import ROOT, SwarmUnderTest, family

LOOK_SECONDS = 60.0
WARM_UP = 0.1
WINDOW = 5


@dataclass(frozen=True)
class Counts:
    """Of one peer or coordinator with all its child processes; memory in MiB, shared pages counted once."""

    memory: float
    files: int
    threads: int

    def __str__(self) -> str:
        return f"{self.memory:.0f} MiB, {self.files} files, {self.threads} threads"


def count(pid: int) -> Counts:
    """Look at a process and its descendants in /proc."""
    memory = files = threads = 0
    for member in family(pid):
        with contextlib.suppress(OSError):  # it has just ended
            folder = Path(f"/proc/{member}")
            memory += _field(folder / "smaps_rollup", "Pss:")
            threads += _field(folder / "status", "Threads:")
            files += len(list((folder / "fd").iterdir()))
    return Counts(memory / 1024, files, threads)


def median(counts: Iterable[Counts]) -> Counts:
    """Of each field on its own."""
    counts = list(counts)
    return Counts(
        statistics.median(item.memory for item in counts),
        round(statistics.median(item.files for item in counts)),
        round(statistics.median(item.threads for item in counts)),
    )


def main() -> int:
    """Watch a run for as long as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", type=Path, default=ROOT / "examples" / "demo.toml")
    parser.add_argument("--minutes", type=float, default=60.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="artel-steadiness-") as folder:
        swarm = SwarmUnderTest(Path(folder), endless(given.spec, Path(folder)))
        try:
            observe(swarm, 60 * given.minutes)
        finally:
            swarm.end()
    return 0


def observe(swarm: SwarmUnderTest, seconds: float) -> None:
    """Start everything, look once a minute, print what became of it."""
    processes = {"coordinator": swarm.start_coordinator()}
    processes |= {name: swarm.start_peer(name) for name in ("first", "second")}
    swarm.wait_for(lambda: swarm.steps("first") and swarm.steps("second"), "a step of both", deadline=240)
    seen: dict[str, list[Counts]] = {name: [] for name in processes}
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        for name, process in processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} has ended: {swarm.errors(name)}")
            seen[name].append(count(process.pid))
        step = swarm.status()["global_step"]
        minutes = (time.monotonic() - began) / 60
        words = "; ".join(f"{name} {counts[-1]}" for name, counts in seen.items())
        print(f"{minutes:5.1f} min, step {step}: {words}", file=sys.stderr, flush=True)
        time.sleep(LOOK_SECONDS)
    for name, counts in seen.items():
        early = counts[int(WARM_UP * len(counts)) :][:WINDOW]
        print(f"{name:<12}  early: {median(early)}   late: {median(counts[-WINDOW:])}")
    print(f"{swarm.status()['global_step']} global steps in {(time.monotonic() - began) / 60:.0f} minutes")


def _field(path: Path, name: str) -> int:
    line = next(line for line in path.read_text().splitlines() if line.startswith(name))
    return int(line.split()[1])


if __name__ == "__main__":
    sys.exit(main())
