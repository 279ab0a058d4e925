"""The run bundle: signed, content-addressed, and harmless whatever a sender puts into it."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from swarm.bundle import (
    BundleCache,
    BundleFile,
    Manifest,
    SignedManifest,
    load_spec_of,
    pack_bundle,
    parse_manifest,
)
from swarm.errors import OperationFailed
from swarm.identity import Identity
from swarm.spec import RunSpec

SPEC = RunSpec(name="bundle-test")


@pytest.fixture
def bundle(tmp_path):
    directory = tmp_path / "bundle"
    (directory / "tokenizer").mkdir(parents=True)
    (directory / "shards").mkdir()
    (directory / "tokenizer" / "tokenizer.json").write_text("{}")
    (directory / "shards" / "00000.bin").write_bytes(bytes(1000))
    (directory / "heldout.safetensors").write_bytes(b"rows")
    return directory


def test_packing_twice_gives_the_same_fingerprint(bundle):
    identity = Identity.generate()
    assert pack_bundle(bundle, SPEC, identity) == pack_bundle(bundle, SPEC, identity)


def test_any_changed_file_changes_the_fingerprint(bundle):
    identity = Identity.generate()
    before = pack_bundle(bundle, SPEC, identity)
    (bundle / "heldout.safetensors").write_bytes(b"other")
    assert pack_bundle(bundle, SPEC, identity).fingerprint != before.fingerprint


def test_a_manifest_signed_by_another_key_is_refused(bundle):
    signed = pack_bundle(bundle, SPEC, Identity.generate())
    forged = SignedManifest(
        payload=signed.payload, signature=Identity.generate().sign(signed.payload.encode()).hex()
    )
    with pytest.raises(OperationFailed, match="not signed by its coordinator"):
        forged.open()


@pytest.mark.parametrize(
    "name", ["../escape", "/etc/passwd", "a/b/c", "tokenizer/../../x", "", ".hidden", "a\\b", "x\n"]
)
def test_file_names_cannot_leave_the_bundle(name):
    with pytest.raises(ValueError, match="validation error"):
        BundleFile(name=name, size=1, sha256="0" * 64)


@pytest.mark.parametrize(
    "raw", [b"", b"{}", b"[1]", b"\xff\xfe", json.dumps({"payload": 1, "signature": "x"}).encode()]
)
def test_a_malformed_manifest_is_one_line(raw):
    with pytest.raises(OperationFailed) as caught:
        parse_manifest(raw)
    assert "\n" not in str(caught.value)


def test_the_cache_takes_a_file_only_if_it_is_what_was_signed(bundle, tmp_path):
    manifest = pack_bundle(bundle, SPEC, Identity.generate()).open()
    file = next(item for item in manifest.files if item.name == "heldout.safetensors")
    cache = BundleCache(tmp_path / "cache")
    cache.partial_path(file).write_bytes(b"r0ws")
    with pytest.raises(OperationFailed, match=r"heldout\.safetensors does not match"):
        cache.accept(file)
    assert not cache.partial_path(file).exists()
    assert not cache.is_complete(file)
    cache.partial_path(file).write_bytes(b"rows")
    cache.accept(file)
    assert cache.is_complete(file)


def test_a_bundle_is_laid_out_by_its_names_and_repaired_after_damage(bundle, tmp_path):
    signed = pack_bundle(bundle, SPEC, Identity.generate())
    cache = BundleCache(tmp_path / "cache")
    fill(cache, bundle, signed.open())
    folder = cache.lay_out(signed)
    assert load_spec_of(folder, signed.open()) == SPEC
    assert (folder / "shards" / "00000.bin").read_bytes() == bytes(1000)
    assert cache.lay_out(signed) == folder

    (folder / "shards" / "00000.bin").write_bytes(b"damaged")  # a hard link: damages the blob as well
    shard = next(item for item in signed.open().files if item.name == "shards/00000.bin")
    assert not cache.is_complete(shard)
    fill(cache, bundle, signed.open())
    assert (cache.lay_out(signed) / "shards" / "00000.bin").read_bytes() == bytes(1000)


def test_peers_that_join_at_once_never_pull_the_folder_from_under_each_other(bundle, tmp_path):
    signed = pack_bundle(bundle, SPEC, Identity.generate())
    fill(BundleCache(tmp_path / "cache"), bundle, signed.open())
    together = threading.Barrier(8)

    def join(_number: int) -> bool:
        together.wait()
        folder = BundleCache(tmp_path / "cache").lay_out(signed)
        return all(load_spec_of(folder, signed.open()) == SPEC for _ in range(20))

    with ThreadPoolExecutor(8) as peers:
        assert all(peers.map(join, range(8)))


def fill(cache: BundleCache, bundle, manifest: Manifest) -> None:
    for file in manifest.files:
        if not cache.is_complete(file):
            cache.partial_path(file).write_bytes((bundle / file.name).read_bytes())
            cache.accept(file)
