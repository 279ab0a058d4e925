"""What a real coordinator costs with 500 peers and 50 open pages, and how late the pages are.

    python -m benchmarks.coordinator_load [--peers 500] [--viewers 50] [--seconds 60 | --minutes 60] [--processes 3]

Starts `coordinator run` and a few processes that are nodes of its DHT. Each of them renews the signed leases and
peer records of many synthetic peers, which have identities of their own but no model; the coordinator, one of few
nodes, stores and checks every record. Another process holds the pages' event streams open.

Lateness is from a record to the page: one more peer signs the moment of writing into its record about every second,
and a page notes when it has unpacked that record. It is shown by stage, and beside it how often the tracker looks: a
record waits up to so long. CPU is seconds of processor time, which a busy machine changes little. Memory is what is not
a mapped file, every page once; its trend is that of the second half of the measurement, for what is remembered for
minutes has to fill first.

Compared with: the goals of one CPU core, 2 s, and memory that does not grow. Left out: what the reads of 500 real peers
cost the nodes that hold the records; here each process reads like one peer.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.interleaved import print_table
from benchmarks.load_pages import hold_streams
from benchmarks.load_peers import LEASE_EXPIRATION, LEASE_PERIOD, renew_peers, renew_probe
from benchmarks.process_family import ByProcess, cpu_seconds, memory_mib, trend

START_SECONDS = 900.0
SETTLE_SECONDS = 90.0
MEMORY_SAMPLES = 60
# stretches of time whose ends are shown
COURSE = 6
# of a shorter time a trend says nothing
TREND_SECONDS = 300.0
GOAL_CORES, GOAL_LATE_SECONDS, GOAL_GROWTH = 1.0, 2.0, 0.02
STAGES = {
    "in_view": "written → in the view",
    "stored": "… of that, storing on the DHT's nodes",
    "sent": "in the view → sent",
    "received": "sent → unpacked by the page",
    "late": "record → page",
    "look": "the tracker looks every",
}

COLUMNS = ("", "measured", "goal")

SPEC = """
name = "load"
[model]
hidden_size = 32
intermediate_size = 64
num_hidden_layers = 2
num_attention_heads = 2
embedding_size = 16
max_position_embeddings = 64
[data]
source = "{source}"
sequence_length = 16
[leases]
period = {period}
expiration = {expiration}
"""


def main() -> None:
    """Run the whole measurement, or one of its processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peers", type=int, default=500)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--minutes", type=float, help="instead of --seconds: 60 for memory over an hour")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    seconds = options.seconds if options.minutes is None else 60 * options.minutes
    role, *arguments = options.role or ["measure"]
    if role == "measure":
        measure(options.peers, options.viewers, seconds, options.processes)
    elif role == "peers":
        renew_peers(Path(arguments[0]), arguments[1], int(arguments[2]), int(arguments[3]))
    elif role == "probe":
        renew_probe(Path(arguments[0]), arguments[1])
    else:
        asyncio.run(hold_streams(arguments[0], options.viewers, seconds))


@dataclass(frozen=True)
class Usage:
    """What the coordinator's processes took.

    :param cpu: seconds of processor time per minute
    :param memory: MiB at these `moments` (seconds since the beginning)
    """

    cpu: ByProcess
    moments: list[float]
    memory: list[ByProcess]


def measure(peers: int, viewers: int, seconds: float, processes: int) -> None:
    """Start everything, let it settle, measure for `seconds`, print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        coordinator = start_coordinator(folder)
        helpers: list[subprocess.Popen[bytes]] = []
        try:
            address = wait_for_file(folder / "run" / "dashboard.txt", coordinator)
            join = wait_for_file(folder / "run" / "join.txt", coordinator)
            contact = re.findall(r"/ip4/127\S+", join)[0]
            share = [peers // processes + (number < peers % processes) for number in range(processes)]
            roles = [
                ["peers", str(folder), contact, str(number), str(count)] for number, count in enumerate(share)
            ]
            helpers = [start(role) for role in [*roles, ["probe", str(folder), contact]]]
            wait_for_peers(folder / "run" / "status.json", peers)
            time.sleep(SETTLE_SECONDS)
            options = (f"--viewers={viewers}", f"--seconds={seconds}")
            streams = start(["streams", address], *options, stdout=subprocess.PIPE)
            helpers.append(streams)
            usage = watch(coordinator.pid, streams, seconds)
            answer = streams.communicate()[0]
            if streams.returncode:
                print_table(COLUMNS, [*cpu_rows(usage.cpu), *memory_rows(usage.moments, usage.memory)])
                sys.exit("coordinator_load: the pages lost the coordinator; that was its cost until then")
            report(usage, json.loads(answer), folder / "run" / "status.json")
        finally:
            for process in [*helpers, coordinator]:
                process.kill()
                process.wait()


def watch(pid: int, streams: subprocess.Popen[bytes], seconds: float) -> Usage:
    """Look at the coordinator's processes while the streams are open."""
    time.sleep(2.0)
    before, started = cpu_seconds(pid), time.monotonic()
    moments, memory = [0.0], [memory_mib(pid)]
    while streams.poll() is None and time.monotonic() - started < 2 * seconds + 30:
        time.sleep(max(2.0, seconds / MEMORY_SAMPLES))
        moments.append(time.monotonic() - started)
        memory.append(memory_mib(pid))
    elapsed = time.monotonic() - started
    after = cpu_seconds(pid)
    cpu = {name: 60 * (after[name] - before.get(name, 0.0)) / elapsed for name in after}
    return Usage(cpu, moments, memory)


def report(usage: Usage, found: dict[str, Any], status: Path) -> None:
    """Print the lateness by stage, then what it cost."""
    stages = found["stages"]
    rows = [
        (words, *(f"{stages[stage][key]:.2f} s" for key in ("median", "p99", "worst")))
        for stage, words in STAGES.items()
    ]
    print_table((f"{found['count']} sightings", "median", "p99", "worst"), rows)
    print()
    late = stages["late"]["p99"]
    print_table(
        COLUMNS,
        [
            *cpu_rows(usage.cpu),
            *memory_rows(usage.moments, usage.memory),
            ("record → page, p99", f"{late:.2f} s", verdict(late <= GOAL_LATE_SECONDS, "2 s")),
            ("streams", f"{found['bytes'] / found['seconds'] / 1024:.0f} KiB/s", f"{found['viewers']} pages"),
            (
                "peers shown",
                str(json.loads(status.read_bytes())["peers_online"]),
                f"{usage.moments[-1]:.0f} s, load {os.getloadavg()[0]:.1f}",
            ),
        ],
    )


def cpu_rows(cpu: ByProcess) -> list[tuple[str, str, str]]:
    """Processor time of each process and of all."""
    whole = sum(cpu.values())
    rows = [(f"CPU, {name}", f"{spent:.1f} s per minute", "") for name, spent in sorted(cpu.items())]
    goal = verdict(whole <= 60 * GOAL_CORES, f"{GOAL_CORES:g} core")
    return [*rows, ("CPU, all", f"{whole:.1f} s per minute", goal)]


def memory_rows(moments: list[float], memory: list[ByProcess]) -> list[tuple[str, str, str]]:
    """Memory of each process and of all over time, and the trend since the middle."""
    names = sorted(memory[-1])
    series = {name: [sample.get(name, 0.0) for sample in memory] for name in names}
    series["all"] = [sum(sample.values()) for sample in memory]
    rows = []
    for name, values in series.items():
        half = len(values) // 2
        places = [round(part * (len(values) - 1) / COURSE) for part in range(COURSE + 1)]
        course = " ".join(f"{values[place]:.0f}" for place in places)
        long = moments[-1] - moments[half] >= TREND_SECONDS
        slope = f"{trend(moments[half:], values[half:]):+.1f} MiB/hour" if long else ""
        rows.append((f"memory, {name}", f"{course} MiB", slope))
    middle, end = series["all"][len(memory) // 2], series["all"][-1]
    flat = verdict(end <= middle * (1 + GOAL_GROWTH), f"{GOAL_GROWTH:.0%}")
    return [*rows, ("memory, since the middle", f"{end / middle - 1:+.1%}", flat)]


def verdict(met: bool, goal: str) -> str:
    """The goal, and whether it was met."""
    return f"{goal}: {'met' if met else 'MISSED'}"


def start_coordinator(folder: Path) -> subprocess.Popen[bytes]:
    """A run without text of its own: tokenizer and shards are made of a few made-up sentences."""
    from data_prep.prepare import prepare_corpus
    from tests.conftest import made_up_documents

    prepare_corpus(
        made_up_documents(),
        folder / "data",
        vocab_size=448,
        sequence_length=16,
        heldout_fraction=0.05,
        heldout_rows=32,
    )
    spec = folder / "load.toml"
    spec.write_text(SPEC.format(source=folder / "data", period=LEASE_PERIOD, expiration=LEASE_EXPIRATION))
    options = ["--host-maddrs", "/ip4/127.0.0.1/tcp/0", "--dashboard", "127.0.0.1:0"]
    arguments = ["run", str(spec), "--run-dir", str(folder / "run"), *options]
    code = "from coordinator.cli import main; main()"
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.DEVNULL)


def start(role: list[str], *options: str, stdout: int | None = None) -> subprocess.Popen[bytes]:
    """Another process of this measurement."""
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.coordinator_load", *options, "--role", *role], stdout=stdout
    )


def wait_for_file(path: Path, process: subprocess.Popen[bytes]) -> str:
    """What a file of the starting coordinator says."""
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{path.name} did not appear")
        time.sleep(0.1)
    return path.read_text().strip()


def wait_for_peers(status: Path, peers: int) -> None:
    """Until the coordinator shows so many, and the probe."""
    deadline, shown = time.monotonic() + START_SECONDS, 0
    while shown <= peers:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {shown} of {peers} peers and a probe are shown")
        time.sleep(2.0)
        if status.exists():
            shown = json.loads(status.read_bytes())["peers_online"]
            print(f"{shown} peers are there", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
