"""Somebody who wants in, or is in and means ill: one kind of attack per process, told in one JSON line.

    python -m tests.scenarios.intruder KIND SETUP

`SETUP` is JSON, see `Setup`; insiders have a token, outsiders at most a ticket that is somebody else's. The answer says
what the intruder got.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import socket
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import torch
from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.dht import DHTID
from hivemind.dht.protocol import DHTProtocol
from hivemind.p2p import P2P, PeerID
from hivemind.proto import averaging_pb2, dht_pb2, runtime_pb2
from hivemind.utils import MSGPackSerializer

from swarm.admission import Admission
from swarm.averager import SwarmAverager
from swarm.credentials import AdmissionRequest, Credentials, ask
from swarm.dht import RecordBoard, TiedDHT, open_dht
from swarm.identity import Identity
from swarm.lifeline import daemons_tied_to_us
from swarm.records import EvictionsRecord, HeadRecord, Lease, dht_key, pack_record
from swarm.snapshot import Snapshot
from swarm.spec import RunSpec, load_spec
from swarm.states import PeerState
from swarm.ticket import Ticket, write_ticket
from swarm.training_state import TrainingState, build_model
from swarm.transfer import FILE_HANDLER, MANIFEST_HANDLER

CALL_SECONDS = 15.0
SIEGE_SECONDS = 15.0
GARBAGE_BYTES = 65536


class Setup:
    """Where the run is, and who the intruder is."""

    def __init__(self, values: dict[str, Any]):
        self.address: str = values["address"]
        self.peer_id = self.address.rpartition("/")[2]
        self.run_id: str = values["run_id"]
        self.folder = Path(values["folder"])
        self.spec_path = Path(values["spec"])
        self.token: str | None = values.get("token")
        self.stolen: str = values.get("ticket", "")
        self.file: str = values.get("file", "0" * 64)
        self.ports: list[int] = values.get("ports", [])
        self.vocab_size: int = values.get("vocab_size", 64)
        self.identity_path = self.folder / f"intruder-{os.getpid()}.key"
        self.identity = Identity.load_or_create(self.identity_path)

    @property
    def target(self) -> PeerID:
        return PeerID.from_base58(self.peer_id)

    def open_p2p(self) -> Awaitable[P2P]:
        return P2P.create(
            initial_peers=[self.address], identity_path=str(self.identity_path), check_if_identity_free=False
        )


async def call(p2p: P2P, setup: Setup, name: str, request: Any, answer_type: type) -> Any:
    """A unary call; what it raised, in words, if it did."""
    try:
        calling = p2p.call_protobuf_handler(setup.target, name, request, answer_type)
        return await asyncio.wait_for(calling, CALL_SECONDS)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


async def stream(p2p: P2P, setup: Setup, name: str, request: Any, answer_type: type) -> list[Any]:
    """Everything a streaming handler sends; nothing if it fails."""
    found = []
    with contextlib.suppress(Exception):
        messages = await asyncio.wait_for(
            p2p.iterate_protobuf_handler(setup.target, name, request, answer_type), CALL_SECONDS
        )
        async for message in messages:
            found.append(message)
    return found


async def read_and_write(setup: Setup) -> dict[str, Any]:
    """A stranger asks a DHT node for the leases, and stores one of its own, with and without a stolen ticket."""
    p2p = await setup.open_p2p()
    key = DHTID.generate(source=dht_key(setup.run_id, Lease)).to_bytes()
    got: dict[str, Any] = {}
    for name, ticket in (("without", ""), ("with a stolen ticket", setup.stolen)):
        find = dht_pb2.FindRequest(keys=[key], peer=dht_pb2.NodeInfo(node_id=DHTID.generate().to_bytes()))
        find.auth.client_access_token.public_key = ticket.encode()
        found = await call(p2p, setup, "DHTProtocol.rpc_find", find, dht_pb2.FindResponse)
        store = dht_pb2.StoreRequest(
            keys=[key],
            subkeys=[DHTProtocol.serializer.dumps(setup.identity.peer_id)],
            values=[DHTProtocol.serializer.dumps(pack_record(a_lease(setup.run_id), setup.identity))],
            expiration_time=[time.time() + 10],
            in_cache=[False],
        )
        store.auth.client_access_token.public_key = ticket.encode()
        stored = await call(p2p, setup, "DHTProtocol.rpc_store", store, dht_pb2.StoreResponse)
        got[name] = {
            "read": 0 if isinstance(found, str) else sum(len(result.value) for result in found.results),
            "written": False if isinstance(stored, str) else any(stored.store_ok),
        }
    return got


async def average(setup: Setup) -> dict[str, Any]:
    """A stranger asks to be led, and sends a part."""
    p2p = await setup.open_p2p()
    join = averaging_pb2.JoinRequest(schema_hash=b"x", expiration=time.time() + 10, group_key="x")
    answers = await stream(
        p2p,
        setup,
        f"{setup.run_id}::SwarmAverager.rpc_join_group",
        join,
        averaging_pb2.MessageFromLeader,
    )
    return {"codes": [averaging_pb2.MessageCode.Name(answer.code) for answer in answers]}


async def download(setup: Setup) -> dict[str, Any]:
    """A stranger downloads state and bundle, with a stolen ticket, too."""
    p2p = await setup.open_p2p()
    state = await stream(
        p2p,
        setup,
        f"{setup.run_id}::SwarmAverager.rpc_download_pieces",
        runtime_pb2.ExpertRequest(metadata=MSGPackSerializer.dumps([0, 1000])),
        averaging_pb2.DownloadData,
    )
    manifests = [
        await call(p2p, setup, MANIFEST_HANDLER, BytesValue(value=ticket.encode()), BytesValue)
        for ticket in ("", setup.stolen)
    ]
    request = json.dumps({"sha256": setup.file, "offset": 0, "ticket": setup.stolen}).encode()
    files = await stream(p2p, setup, FILE_HANDLER, BytesValue(value=request), BytesValue)
    return {
        "state_bytes": sum(message.ByteSize() for message in state),
        "manifests": [
            answer if isinstance(answer, str) else answer.value.decode()[:60] for answer in manifests
        ],
        "file_bytes": sum(len(message.value) for message in files),
    }


async def forge_tickets(setup: Setup) -> dict[str, Any]:
    """Tickets signed by nobody of the run, expired ones, somebody else's; invitations made up."""
    p2p = await setup.open_p2p()
    ours = setup.identity
    own = write_ticket(ours, setup.run_id, ours.peer_id, "x")
    expired = write_ticket(ours, setup.run_id, ours.peer_id, "x", seconds=-1e6)
    tickets = [own, expired, *([Ticket.model_validate_json(setup.stolen)] if setup.stolen else [])]
    answers = [await ask(p2p, setup.peer_id, AdmissionRequest(ticket=ticket)) for ticket in tickets]
    answers.append(await ask(p2p, setup.peer_id, AdmissionRequest(invitation="artel-" + "A" * 200)))
    oversized = await call(p2p, setup, "artel.admission", BytesValue(value=b"x" * 2**20), BytesValue)
    return {
        "tickets": sum(answer.ticket is not None for answer in answers),
        "refusals": [answer.refused for answer in answers],
        "oversized": oversized if isinstance(oversized, str) else oversized.value.decode()[:80],
    }


async def besiege(setup: Setup) -> dict[str, Any]:
    """Garbage on every port, thousands of connections, and readers that are very slow."""
    rng = random.Random(1)
    opened: list[socket.socket] = []
    refused, end = 0, time.monotonic() + SIEGE_SECONDS
    while time.monotonic() < end:
        for port in setup.ports:
            try:
                connection = socket.create_connection(("127.0.0.1", port), timeout=1.0)
                connection.setblocking(False)
                opened.append(connection)
                kind = rng.random()
                if kind < 0.5:
                    connection.send(rng.randbytes(GARBAGE_BYTES))
                elif kind < 0.75:  # a request that never ends
                    connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-")
            except OSError:
                refused += 1
        while len(opened) > 2000:
            opened.pop(0).close()
        await asyncio.sleep(0.002)
    return {"connections": len(opened), "refused": refused}


def insider(setup: Setup) -> tuple[RunSpec, TiedDHT, RecordBoard]:
    """Join the DHT as somebody who was invited."""
    spec = load_spec(setup.spec_path)
    credentials = Credentials(setup.identity_path, setup.folder / f"intruder-{os.getpid()}.json", setup.token)
    if setup.token is not None:

        async def redeem() -> None:
            with daemons_tied_to_us():
                p2p = await setup.open_p2p()
            await credentials.redeem(p2p)
            await p2p.shutdown()

        asyncio.run(redeem())
    admission = Admission(
        spec.run_id,
        [setup.peer_id],
        by_invitation=spec.admission == "invite",
        own_ticket=credentials.ticket,
    )
    dht = open_dht(identity_path=setup.identity_path, initial_peers=[setup.address], admission=admission)
    return spec, dht, RecordBoard(dht, spec.run_id, setup.identity)


def forge_progress(setup: Setup) -> dict[str, Any]:
    """An insider claims to be far ahead, to be the head, that others are evicted, and never to end."""
    _spec, dht, board = insider(setup)
    now, own = time.time(), {"ticket": dht.admission.own_ticket}
    forged = {
        "far ahead": a_lease(setup.run_id, step=10**9, **own),
        "head": HeadRecord(
            run_id=setup.run_id,
            issued=now,
            expires=now + 60,
            step=10**9,
            reached=now,
            state_digest="0" * 64,
            finished=True,
        ),
        "evictions": EvictionsRecord(
            run_id=setup.run_id, issued=now, expires=now + 60, peers=(setup.peer_id,)
        ),
        "from the future": a_lease(setup.run_id, issued=now + 10**6, expires=now + 10**6 + 60, **own),
        "too long": a_lease(setup.run_id, expires=now + 10**6, **own),
    }
    end = time.monotonic() + SIEGE_SECONDS
    taken: dict[str, bool] = {}
    while time.monotonic() < end:
        for name, record in forged.items():
            if name == "far ahead":
                record = record.model_copy(update={"issued": time.time(), "expires": time.time() + 10})
            taken[name] = board.publish(record)
        time.sleep(0.5)
    return {"taken": taken}


def stay_ahead(setup: Setup) -> None:
    """An insider says that it is always one step ahead, and gives nobody a state; until it is killed."""
    _spec, dht, board = insider(setup)
    print(json.dumps({"begun": True}), flush=True)
    while True:
        leases = board.read(Lease) or {}
        steps = [lease.step for peer, lease in leases.items() if peer != setup.identity.peer_id]
        step = max(steps, default=0) + 1
        board.publish(a_lease(setup.run_id, step=step, ticket=dht.admission.own_ticket))
        time.sleep(0.5)


def forge_state(setup: Setup) -> dict[str, Any]:
    """An insider says that it is a little ahead, and gives random numbers to whoever asks for its state."""
    spec, dht, board = insider(setup)
    leases = board.read(Lease) or {}
    step = max([lease.step for lease in leases.values()], default=0) + 5
    state = TrainingState(spec, build_model(spec, vocab_size=setup.vocab_size, pad_token_id=0))
    noise = [torch.randn(layout.shape).abs() for layout in state.layouts]
    asked = torch.zeros(1).share_memory_()

    def give() -> contextlib.nullcontext[Snapshot]:
        asked.add_(1)
        return contextlib.nullcontext(Snapshot(step, "", noise))

    averager = SwarmAverager(
        [torch.zeros(1)], dht, prefix=spec.run_id, spec=spec.averaging, state_source=give
    )
    end = time.monotonic() + 2 * SIEGE_SECONDS
    while time.monotonic() < end:
        board.publish(a_lease(setup.run_id, step=step, ticket=dht.admission.own_ticket))
        board.read(Lease)
        time.sleep(0.5)
    averager.shutdown()
    return {"step": step, "asked": int(asked)}


def a_lease(run_id: str, **facts: Any) -> Lease:
    now = time.time()
    values = {"issued": now, "expires": now + 10, "state": PeerState.TRAINING, "step": 1, "samples": 1}
    return Lease.model_validate({"run_id": run_id, **values, **facts})


KINDS: dict[str, Callable[[Setup], Any]] = {
    "read_and_write": read_and_write,
    "average": average,
    "download": download,
    "forge_tickets": forge_tickets,
    "besiege": besiege,
    "forge_progress": forge_progress,
    "forge_state": forge_state,
    "stay_ahead": stay_ahead,
}


def main() -> None:
    kind, setup = sys.argv[1], Setup(json.loads(sys.argv[2]))
    got = KINDS[kind](setup)
    if asyncio.iscoroutine(got):
        with daemons_tied_to_us():
            got = asyncio.run(got)
    print(json.dumps(got), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
