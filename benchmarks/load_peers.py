"""The synthetic peers of `coordinator_load`: real identities, real signed records, no models.

Runs in processes of its own. Each is a node of the run's DHT and speaks for many peers; what is due within a second
travels in one call. One more process is the probe, a peer whose record says when it was written.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import random
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from pathlib import Path
from typing import Any

from swarm.admission import Admission
from swarm.bundle import SignedManifest
from swarm.dht import RecordBoard, TiedDHT, open_dht
from swarm.identity import Identity
from swarm.records import Lease, PeerRecord, _Record, dht_key, pack_record
from swarm.spec import load_spec
from swarm.states import PeerState

LEASE_PERIOD, LEASE_EXPIRATION = 5.0, 20.0
TICK_SECONDS = 1.0
RENEWALS_PER_RECORD = 4
STORE_SECONDS = 20.0
PROBE = "probe"
# never in step with the tracker, or all records would wait equally long
PROBE_SECONDS = (0.5, 1.5)

Signed = list[tuple[Identity, _Record]]


def renew_peers(folder: Path, contact: str, number: int, count: int) -> None:
    """Renew the records of `count` peers for ever."""
    dht, run_id, identity = _open(folder, contact, str(number))
    owners = [Identity.generate() for _ in range(count)]
    own = RecordBoard(dht, run_id, identity)
    ticks = int(LEASE_PERIOD / TICK_SECONDS)
    for tick in itertools.count():
        started, now = time.monotonic(), time.time()
        leases: Signed = []
        records: Signed = []
        for index in range(tick % ticks, count, ticks):
            leases.append((owners[index], lease_of(run_id, now, index)))
            if tick < ticks or (tick // ticks + index) % RENEWALS_PER_RECORD == 0:
                records.append((owners[index], record_of(run_id, now, f"peer-{number}-{index}")))
        store(dht, run_id, leases)
        store(dht, run_id, records)
        if tick % ticks == 0:
            for kind in (Lease, PeerRecord):
                own.read(kind)
        # spread over the period, as peers that know nothing of each other are
        time.sleep(max(0.0, started + TICK_SECONDS - time.monotonic()))


def renew_probe(folder: Path, contact: str) -> None:
    """Write a record about once a second that says when; as its speed it tells how long storing the last one took."""
    dht, run_id, identity = _open(folder, contact, PROBE)
    stored, lease_due = 0.0, 0.0
    while True:
        if time.monotonic() >= lease_due:
            store(dht, run_id, [(identity, lease_of(run_id, time.time(), 0))])
            lease_due = time.monotonic() + LEASE_PERIOD
        now, started = time.time(), time.monotonic()
        record = record_of(run_id, now, PROBE).model_copy(update={"loss": now, "samples_per_second": stored})
        store(dht, run_id, [(identity, record)])
        stored = time.monotonic() - started
        time.sleep(max(0.0, random.uniform(*PROBE_SECONDS) - stored))


def _open(folder: Path, contact: str, name: str) -> tuple[TiedDHT, str, Identity]:
    spec = load_spec(folder / "load.toml")
    manifest = SignedManifest.model_validate_json((folder / "run" / "bundle" / "manifest.json").read_bytes())
    identity, path = Identity.generate(), folder / f"{name}.key"
    identity.save(path)
    admission = Admission(spec.run_id, [manifest.open().authority])
    return (
        open_dht(identity_path=path, initial_peers=[contact], admission=admission),
        spec.run_id,
        identity,
    )


def store(dht: TiedDHT, run_id: str, records: Signed) -> None:
    """Sign records of one kind and store them in one call; each is its owner's own."""
    if not records:
        return
    rows = [(owner.peer_id, pack_record(record, owner), record.expires) for owner, record in records]
    key = dht_key(run_id, type(records[0][1]))
    stored = dht.run_coroutine(functools.partial(_store_many, key, rows), return_future=True)
    with contextlib.suppress(FutureTimeoutError):  # a peer tries again at its next renewal
        stored.result(STORE_SECONDS)


async def _store_many(key: str, rows: list[tuple[str, bytes, float]], _dht: TiedDHT, node: Any) -> None:
    """Runs in the DHT process."""
    subkeys, values, expirations = (list(column) for column in zip(*rows, strict=True))
    await node.store_many([key] * len(rows), values, expirations, subkeys=subkeys)


def lease_of(run_id: str, now: float, samples: int) -> Lease:
    """A lease as a peer signs it that trains."""
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


def record_of(run_id: str, now: float, name: str) -> PeerRecord:
    """A peer record as a peer signs it that trains."""
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
        loss=5.0 + now % 1,
    )
