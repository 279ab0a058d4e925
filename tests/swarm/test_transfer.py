"""Fetching the run bundle over libp2p from a real node: resumed, checked, and trusted only if it may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from swarm.addresses import Address, parse_address
from swarm.bundle import BundleCache, SignedManifest, file_digest, pack_bundle
from swarm.dht import open_dht
from swarm.errors import BadInput
from swarm.identity import Identity
from swarm.service import ServiceThread
from swarm.spec import RunSpec
from swarm.transfer import BundleServer, fetch_bundle

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
    dht = open_dht(identity_path=folder / "identity.key")
    service = ServiceThread(dht)
    BundleServer(directory).start(service)
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
    dht = open_dht(identity_path=identity_path)
    service = ServiceThread(dht)
    try:
        BundleServer(served.directory).start(service)
        address = parse_address(str(dht.get_visible_maddrs()[0]))
        cache = BundleCache(tmp_path / "cache")
        with pytest.raises(BadInput, match="not the coordinator of this run"):
            fetch_bundle([address], cache)
        signed, _ = fetch_bundle([address], cache, fingerprint=served.signed.fingerprint)
        assert signed == served.signed
    finally:
        service.stop()
        dht.shutdown()
