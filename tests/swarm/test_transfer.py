"""Fetching the run bundle over libp2p from a real node: resumed, checked, and trusted only if it may be."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from swarm.addresses import Address, parse_address
from swarm.admission import Admission
from swarm.bundle import BundleCache, SignedManifest, file_digest, pack_bundle
from swarm.credentials import HANDLER, AdmissionAnswer, AdmissionRequest, Credentials
from swarm.dht import open_dht
from swarm.errors import BadInput, OperationFailed
from swarm.identity import Identity
from swarm.service import ServiceThread, add_stream_handler, add_unary_handler
from swarm.spec import RunSpec
from swarm.ticket import Invitation, write_invitation, write_ticket
from swarm.transfer import FILE_HANDLER, MANIFEST_HANDLER, BundleServer, fetch_bundle

LARGE = 3 * 2**20


@dataclass(frozen=True)
class Served:
    address: Address
    signed: SignedManifest
    directory: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    """A bundle of one large and one small file, served by its authority."""
    folder = tmp_path_factory.mktemp("served")
    directory = folder / "bundle"
    (directory / "shards").mkdir(parents=True)
    (directory / "shards" / "00000.bin").write_bytes(bytes(range(256)) * (LARGE // 256))
    (directory / "heldout.safetensors").write_bytes(b"rows")
    identity = Identity.load_or_create(folder / "identity.key")
    signed = pack_bundle(directory, RunSpec(name="served"), identity)
    dht = open_dht(identity_path=folder / "identity.key", admission=Admission("test", ()))
    service = ServiceThread(dht)
    BundleServer(directory, Admission("test", ())).start(service)
    yield Served(parse_address(str(dht.get_visible_maddrs()[0])), signed, directory)
    service.stop()
    dht.shutdown()


def test_a_bundle_arrives_whole_and_a_second_fetch_needs_no_byte(served, tmp_path):
    cache, arrivals = BundleCache(tmp_path), []
    signed, folder = fetch_bundle([served.address], cache, progress=lambda *what: arrivals.append(what))
    assert signed == served.signed
    assert (folder / "shards" / "00000.bin").read_bytes() == bytes(range(256)) * (LARGE // 256)
    assert arrivals[-1][1] == arrivals[-1][2]
    arrivals.clear()
    assert fetch_bundle([served.address], cache, progress=lambda *what: arrivals.append(what)) == (
        signed,
        folder,
    )
    assert arrivals == []


def test_an_interrupted_file_goes_on_where_it_stopped(served, tmp_path):
    cache, arrivals = BundleCache(tmp_path), []
    shard = next(file for file in served.signed.open().files if file.size == LARGE)
    content = (served.directory / shard.name).read_bytes()
    cache.partial_path(shard).write_bytes(content[: LARGE - 1000])
    _, folder = fetch_bundle([served.address], cache, progress=lambda *what: arrivals.append(what))
    assert file_digest(folder / shard.name) == shard.sha256
    assert [done for name, done, _size in arrivals if name == shard.name] == [LARGE]


@contextmanager
def breaking_off(served: Served, folder: Path, sends: Callable[[int], int]) -> Iterator[Address]:
    """A server whose every stream ends after the first bytes: `sends` tells how many, by the stream's number."""
    contents = {
        file.sha256: (served.directory / file.name).read_bytes() for file in served.signed.open().files
    }
    streams = 0

    async def send_manifest(_request: bytes, _context: object) -> bytes:
        return served.signed.model_dump_json().encode()

    async def send_file(request: bytes, _context: object) -> AsyncIterator[bytes]:
        nonlocal streams
        streams += 1
        wanted = json.loads(request)
        if count := sends(streams):
            yield contents[wanted["sha256"]][wanted["offset"] :][:count]

    Identity.load_or_create(folder / "identity.key")
    dht = open_dht(identity_path=folder / "identity.key", admission=Admission("test", ()))
    service = ServiceThread(dht)
    try:
        service.run(add_unary_handler(service.p2p, MANIFEST_HANDLER, send_manifest), timeout=10)
        service.run(add_stream_handler(service.p2p, FILE_HANDLER, send_file), timeout=10)
        yield parse_address(str(dht.get_visible_maddrs()[0]))
    finally:
        service.stop()
        dht.shutdown()


def test_streams_that_break_off_are_opened_again(served, tmp_path):
    with breaking_off(served, tmp_path, lambda stream: stream % 3 * LARGE // 4) as address:
        _, folder = fetch_bundle(
            [address], BundleCache(tmp_path / "cache"), fingerprint=served.signed.fingerprint
        )
    assert (folder / "shards" / "00000.bin").read_bytes() == bytes(range(256)) * (LARGE // 256)


def test_a_server_that_never_sends_a_byte_is_given_up(served, tmp_path):
    with (
        breaking_off(served, tmp_path, lambda _stream: 0) as address,
        pytest.raises(OperationFailed, match="the connection ended after 0 of"),
    ):
        fetch_bundle([address], BundleCache(tmp_path / "cache"), fingerprint=served.signed.fingerprint)


def test_the_fingerprint_decides_when_it_is_given(served, tmp_path):
    cache = BundleCache(tmp_path)
    signed, _ = fetch_bundle([served.address], cache, fingerprint=served.signed.fingerprint)
    assert signed == served.signed
    with pytest.raises(BadInput, match="as --run says"):
        fetch_bundle([served.address], cache, fingerprint="0" * 64)


def test_without_a_fingerprint_only_the_authoritys_own_address_is_believed(served, tmp_path):
    """Another peer serves the same bundle: its word alone is not enough, with the fingerprint it is."""
    identity_path = tmp_path / "identity.key"
    Identity.load_or_create(identity_path)
    dht = open_dht(identity_path=identity_path, admission=Admission("test", ()))
    service = ServiceThread(dht)
    try:
        BundleServer(served.directory, Admission("test", ())).start(service)
        address = parse_address(str(dht.get_visible_maddrs()[0]))
        cache = BundleCache(tmp_path / "cache")
        with pytest.raises(BadInput, match="not the coordinator of this run"):
            fetch_bundle([address], cache)
        signed, _ = fetch_bundle([address], cache, fingerprint=served.signed.fingerprint)
        assert signed == served.signed
    finally:
        service.stop()
        dht.shutdown()


def test_an_invitation_goes_to_the_coordinator_that_made_it_whoever_serves_the_bundle(tmp_path):
    (tmp_path / "bundle").mkdir()
    newcomer = Identity.load_or_create(tmp_path / "newcomer.key")
    with node(tmp_path / "first.key") as (first, service, address), node(tmp_path / "other.key") as other:
        spec = RunSpec(name="served", admission="invite")
        signed = pack_bundle(tmp_path / "bundle", spec, first)
        BundleServer(tmp_path / "bundle", Admission(spec.run_id, [first.peer_id], by_invitation=True)).start(
            other.service
        )

        async def admit(request: bytes, _context: object) -> bytes:
            assert AdmissionRequest.model_validate_json(request).invitation == token
            ticket = write_ticket(first, spec.run_id, newcomer.peer_id, "anna")
            return AdmissionAnswer(ticket=ticket).model_dump_json().encode()

        service.run(add_unary_handler(service.p2p, HANDLER, admit), timeout=10)
        token = invitation(first, spec.run_id)
        known = fetch_with(token, [other.address, address], tmp_path, signed.fingerprint)
        assert known == signed
        lost = invitation(Identity.generate(), spec.run_id)
        (tmp_path / "ticket.json").unlink()
        with pytest.raises(OperationFailed, match=f"of run {spec.run_id}, which made the invitation, cannot"):
            fetch_with(lost, [other.address, address], tmp_path, signed.fingerprint)


class Node(NamedTuple):
    identity: Identity
    service: ServiceThread
    address: Address


@contextmanager
def node(identity_path: Path) -> Iterator[Node]:
    identity = Identity.load_or_create(identity_path)
    dht = open_dht(identity_path=identity_path, admission=Admission("test", ()))
    service = ServiceThread(dht)
    try:
        yield Node(identity, service, parse_address(str(dht.get_visible_maddrs()[0])))
    finally:
        service.stop()
        dht.shutdown()


def invitation(issuer: Identity, run_id: str) -> str:
    return write_invitation(
        issuer,
        Invitation(
            run_id=run_id,
            key="0" * 16,
            name="anna",
            role="peer",
            expires=time.time() + 60,
            issuer=issuer.peer_id,
        ),
    )


def fetch_with(token: str, addresses: list[Address], folder: Path, fingerprint: str) -> SignedManifest:
    credentials = Credentials(folder / "newcomer.key", folder / "ticket.json", token)
    cache = BundleCache(folder / "cache")
    return fetch_bundle(addresses, cache, fingerprint=fingerprint, credentials=credentials)[0]
