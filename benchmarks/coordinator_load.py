"""What a real coordinator costs with 500 peers and 50 open pages, and how late the pages are.

    python -m benchmarks.coordinator_load [--peers 500] [--viewers 50] [--seconds 60] [--processes 3]

Starts `coordinator run` and a few processes that are nodes of its DHT. Each of them renews the signed leases and
peer records of many synthetic peers, which have identities of their own but no model; what is due within a second
travels in one call, and the coordinator, one of few nodes, stores and checks every record. Another process holds the
pages' event streams open, which ask for compression as browsers do.

Latency: one more peer signs the moment of writing into its record every second. It ends when a stream has delivered
that record to a reader: storing it on the DHT's nodes, the tracker's reading, and the stream are all in it. CPU is
seconds of processor time, which a busy machine changes little. Memory is the proportional set size (PSS); whether it
grows is seen from the middle of the measurement to its end, for what is remembered for minutes has to fill first.

Compared with: the goals of one CPU core, 2 s, and memory that does not grow. Left out: what the reads of 500 real peers
cost the nodes that hold the records; here each process reads like one peer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path

from benchmarks.interleaved import print_table

LEASE_PERIOD, LEASE_EXPIRATION = 5.0, 20.0
TICK_SECONDS = 1.0
RENEWALS_PER_RECORD = 4
STORE_SECONDS = 20.0
START_SECONDS = 900.0
SETTLE_SECONDS = 90.0
GOAL_CORES, GOAL_LATENCY_SECONDS, GOAL_GROWTH = 1.0, 2.0, 0.02
MARK = "probe"
# a browser has a machine of its own; here all of them would take the coordinator's cores
PARSING_VIEWERS = 5

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
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role is None:
        measure(options.peers, options.viewers, options.seconds, options.processes)
    elif options.role[0] == "peers":
        renew_peers(Path(options.role[1]), options.role[2], int(options.role[3]), int(options.role[4]))
    else:
        asyncio.run(hold_streams(options.role[1], options.viewers, options.seconds))


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
            helpers = [
                start(["peers", str(folder), contact, str(number), str(count)])
                for number, count in enumerate(share)
            ]
            wait_for_peers(folder / "run" / "status.json", peers)
            time.sleep(SETTLE_SECONDS)
            streams = start(
                ["streams", address], f"--viewers={viewers}", f"--seconds={seconds}", stdout=subprocess.PIPE
            )
            helpers.append(streams)
            report(coordinator.pid, streams, folder, seconds)
        finally:
            for process in [*helpers, coordinator]:
                process.kill()
                process.wait()


def report(pid: int, streams: subprocess.Popen[bytes], folder: Path, seconds: float) -> None:
    """Print what the coordinator's processes took while the streams were open."""
    time.sleep(2.0)
    before, started = cpu_seconds(pid), time.monotonic()
    samples = [memory_mib(pid)]
    while streams.poll() is None and time.monotonic() - started < 2 * seconds + 30:
        time.sleep(5.0)
        samples.append(memory_mib(pid))
    elapsed = time.monotonic() - started
    after = cpu_seconds(pid)
    found = json.loads(streams.communicate()[0])
    status = json.loads((folder / "run" / "status.json").read_bytes())
    used = {name: 60 * (after[name] - before.get(name, 0.0)) / elapsed for name in after}
    whole = sum(used.values())
    rows = [(f"CPU, {name}", f"{spent:.1f} s per minute", "") for name, spent in sorted(used.items())]
    rows.append(
        (
            "CPU, all",
            f"{whole:.1f} s per minute",
            verdict(whole <= 60 * GOAL_CORES, f"{GOAL_CORES:g} core"),
        )
    )
    rows += memory_rows(samples)
    rows += [
        ("latency, median", f"{found['median']:.2f} s", ""),
        ("latency, p99", f"{found['p99']:.2f} s", verdict(found["p99"] <= GOAL_LATENCY_SECONDS, "2 s")),
        (
            "latency, worst",
            f"{found['worst']:.2f} s",
            f"{found['count']} sightings, {found['viewers']} pages",
        ),
        ("stream", f"{found['bytes'] / found['seconds'] / 1024:.0f} KiB/s", "all pages together"),
        ("peers shown", str(status["peers_online"]), f"{elapsed:.0f} s, load {os.getloadavg()[0]:.1f}"),
    ]
    print_table(("", "measured", "goal"), rows)


def memory_rows(samples: list[dict[str, float]]) -> list[tuple[str, str, str]]:
    """Memory of each process at the beginning, in the middle and at the end of the measurement."""
    moments = (samples[0], samples[len(samples) // 2], samples[-1])
    rows = [
        (f"memory, {name}", " → ".join(f"{moment.get(name, 0.0):.0f}" for moment in moments) + " MiB", "")
        for name in sorted(samples[-1])
    ]
    whole = [sum(moment.values()) for moment in moments]
    grown = whole[2] / whole[1] - 1
    flat = verdict(grown <= GOAL_GROWTH, f"{grown:+.1%} since the middle, {GOAL_GROWTH:.0%}")
    return [*rows, ("memory, all", " → ".join(f"{value:.0f}" for value in whole) + " MiB", flat)]


def verdict(met: bool, goal: str) -> str:
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
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.coordinator_load", *options, "--role", *role], stdout=stdout
    )


def wait_for_file(path: Path, process: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + START_SECONDS
    while not path.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{path.name} did not appear")
        time.sleep(0.1)
    return path.read_text().strip()


def wait_for_peers(status: Path, peers: int) -> None:
    deadline, shown = time.monotonic() + START_SECONDS, 0
    while shown < peers:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {shown} of {peers} peers are shown")
        time.sleep(2.0)
        if status.exists():
            shown = json.loads(status.read_bytes())["peers_online"]
            print(f"{shown} peers are there", file=sys.stderr, flush=True)


def renew_peers(folder: Path, contact: str, number: int, count: int) -> None:
    """One node of the DHT that speaks for `count` peers; the first node also for the one that measures latency."""
    from swarm.admission import Admission
    from swarm.bundle import SignedManifest
    from swarm.dht import RecordBoard, open_dht
    from swarm.identity import Identity
    from swarm.records import Lease, PeerRecord
    from swarm.spec import load_spec

    spec = load_spec(folder / "load.toml")
    manifest = SignedManifest.model_validate_json((folder / "run" / "bundle" / "manifest.json").read_bytes())
    identity, path = Identity.generate(), folder / f"{number}.key"
    identity.save(path)
    admission = Admission(spec.run_id, [manifest.open().authority])
    dht = open_dht(identity_path=path, initial_peers=[contact], admission=admission)
    owners = [Identity.generate() for _ in range(count)]
    own = RecordBoard(dht, spec.run_id, identity)
    ticks = int(LEASE_PERIOD / TICK_SECONDS)
    for tick in itertools.count():
        started, now = time.monotonic(), time.time()
        records: list[tuple] = []
        for index in range(tick % ticks, count, ticks):
            records.append((owners[index], lease_of(spec.run_id, now, index)))
            if tick < ticks or (tick // ticks + index) % RENEWALS_PER_RECORD == 0:
                records.append((owners[index], record_of(spec.run_id, now, f"peer-{number}-{index}")))
        store(dht, spec.run_id, records)
        if number == 0:
            timed = record_of(spec.run_id, time.time(), MARK, timed=True)
            store(dht, spec.run_id, [(identity, lease_of(spec.run_id, now, 0)), (identity, timed)])
        if tick % ticks == 0:
            for kind in (Lease, PeerRecord):
                own.read(kind)
        # spread over the period, as peers that know nothing of each other are
        time.sleep(max(0.0, started + TICK_SECONDS - time.monotonic()))


def store(dht, run_id: str, records: list[tuple]) -> None:
    """Sign and store, in one call for each kind; each record is its owner's own."""
    from swarm.records import dht_key, pack_record

    by_kind: dict[str, list[tuple]] = {}
    for owner, record in records:
        row = (owner.peer_id, pack_record(record, owner), record.expires)
        by_kind.setdefault(dht_key(run_id, type(record)), []).append(row)
    for key, rows in by_kind.items():
        stored = dht.run_coroutine(functools.partial(_store_many, key, rows), return_future=True)
        with contextlib.suppress(FutureTimeoutError):  # a peer tries again at its next renewal
            stored.result(STORE_SECONDS)


async def _store_many(key: str, rows: list[tuple], _dht, node) -> None:
    """Runs in the DHT process."""
    subkeys, values, expirations = (list(column) for column in zip(*rows, strict=True))
    await node.store_many([key] * len(rows), values, expirations, subkeys=subkeys)


def lease_of(run_id: str, now: float, samples: int):
    from swarm.records import Lease
    from swarm.states import PeerState

    expires = now + LEASE_EXPIRATION
    return Lease(
        run_id=run_id,
        issued=now,
        expires=expires,
        state=PeerState.TRAINING,
        step=0,
        samples=samples,
        samples_per_second=9.5,
    )


def record_of(run_id: str, now: float, name: str, timed: bool = False):
    from swarm.records import PeerRecord
    from swarm.states import PeerState

    return PeerRecord(
        run_id=run_id,
        issued=now,
        expires=now + LEASE_EXPIRATION * RENEWALS_PER_RECORD,
        name=name,
        version="0.1.0",
        state=PeerState.TRAINING,
        device="cpu",
        global_step=0,
        samples_per_second=9.5,
        samples_contributed=int(now) % 10_000,
        loss=now if timed else 5.0 + now % 1,
    )


async def hold_streams(address: str, viewers: int, seconds: float) -> None:
    """Read that many event streams; prints when the timed records were seen."""
    place = urllib.parse.urlsplit(address)
    latencies: list[float] = []
    received = await asyncio.gather(
        *(
            read_stream(
                place.hostname or "", place.port or 0, seconds, latencies, parses=viewer < PARSING_VIEWERS
            )
            for viewer in range(viewers)
        )
    )
    latencies.sort()
    found = {
        "median": statistics.median(latencies),
        "p99": latencies[int(0.99 * (len(latencies) - 1))],
        "worst": latencies[-1],
        "count": len(latencies),
        "viewers": viewers,
        "bytes": sum(received),
        "seconds": seconds,
    }
    print(json.dumps(found), flush=True)


async def read_stream(host: str, port: int, seconds: float, latencies: list[float], parses: bool) -> int:
    """One page; returns the bytes received."""
    reader, writer = await asyncio.open_connection(host, port, limit=2**24)
    writer.write(
        f"GET /api/stream HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n"
        "Accept-Encoding: gzip\r\n\r\n".encode()
    )
    end, received, probe = time.monotonic() + seconds, 0, ""
    while time.monotonic() < end:
        line = await asyncio.wait_for(reader.readline(), 30)
        received += len(line)
        if not parses or not line.startswith(b"data: "):
            continue
        data, now = json.loads(line[6:]), time.time()
        for peer in data["status"]["peers"] if "status" in data else data["peers"]:
            if peer.get("name") == MARK:
                probe = peer["peer_id"]
            elif peer["peer_id"] == probe and "loss" in peer:
                latencies.append(now - peer["loss"])
    writer.close()
    return received


def cpu_seconds(pid: int) -> dict[str, float]:
    """User and system time of a process and its descendants, by what they are."""
    tick = os.sysconf("SC_CLK_TCK")
    found: dict[str, float] = {}
    for name, each in named_family(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / tick
    return found


def memory_mib(pid: int) -> dict[str, float]:
    """Proportional set size of a process and its descendants, by what they are."""
    found: dict[str, float] = {}
    for name, each in named_family(pid):
        size = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{each}/smaps_rollup").read_text(), re.MULTILINE)
        found[name] = found.get(name, 0.0) + (int(size.group(1)) / 1024 if size else 0.0)
    return found


def named_family(pid: int) -> Iterator[tuple[str, int]]:
    """The coordinator's processes; of the forked ones, the DHT is the one with a daemon."""
    yield "tracker, page, control", pid
    for child in children(pid):
        command = Path(f"/proc/{child}/cmdline").read_text()
        daemons = children(child)
        if "checkpoint_process" in command:
            yield "checkpoints", child
        elif "resource_tracker" not in command:
            yield ("DHT" if daemons else "averager"), child
            yield from (("libp2p daemon", daemon) for daemon in daemons)


def children(pid: int) -> list[int]:
    listings = Path(f"/proc/{pid}/task").glob("*/children")
    return sorted(int(child) for listing in listings for child in listing.read_text().split())


if __name__ == "__main__":
    main()
