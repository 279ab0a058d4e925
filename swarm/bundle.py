"""The run bundle: the content-addressed files a run needs, under one signed list of digests.

    bundle/
      manifest.json           {"payload": "<json>", "signature": "<hex>"}: files, sizes, digests, run id, authority
      spec.json               the run spec
      tokenizer/…             a Hugging Face tokenizer
      heldout.safetensors     the held-out set
      shards/…                token ids to train on; only their manifest where they lie on an HTTP server

The fingerprint of a run is the SHA-256 of the signed payload. File names come from a small alphabet and at most one
folder, so nothing a sender writes can leave the receiver's folder; sizes are known before a byte is taken.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarm.errors import OperationFailed
from swarm.identity import Identity, verify
from swarm.records import Hex
from swarm.spec import RunSpec, parse_spec
from swarm.whole_file import write_whole

MAX_MANIFEST_BYTES = 4 * 2**20
MANIFEST_NAME = "manifest.json"
SPEC_NAME = "spec.json"
HELDOUT_NAME = "heldout.safetensors"
TOKENIZER_FOLDER = "tokenizer"
SHARDS_FOLDER = "shards"
_FILE_PATTERN = r"^([a-z0-9_-]{1,64}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"


class BundleFile(BaseModel):
    """One file of the bundle: its name inside the bundle, its size in bytes and its SHA-256."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=_FILE_PATTERN)]
    size: Annotated[int, Field(ge=0, lt=2**40)]
    sha256: Hex


class Manifest(BaseModel):
    """What the authority signs: which run this is and which files belong to it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal[1] = 1
    run_id: str
    authority: str
    files: Annotated[tuple[BundleFile, ...], Field(min_length=1, max_length=100_000)]


class SignedManifest(BaseModel):
    """A manifest as it travels: the exact bytes that were signed, and the signature."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    payload: str
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the signed payload: names this run and all its files."""
        return hashlib.sha256(self.payload.encode()).hexdigest()

    def open(self) -> Manifest:
        """The manifest, if its signature is its authority's; raises `OperationFailed` otherwise."""
        try:
            manifest = Manifest.model_validate_json(self.payload)
        except ValidationError as error:
            raise OperationFailed(
                f"the run bundle's manifest is malformed: {error.errors()[0]['msg']}"
            ) from None
        if not verify(manifest.authority, self.payload.encode(), bytes.fromhex(self.signature)):
            raise OperationFailed(
                "the run bundle's manifest is not signed by its coordinator: do not join this run"
            )
        return manifest


def pack_bundle(directory: Path, spec: RunSpec, identity: Identity) -> SignedManifest:
    """Write `spec.json`, list every file under `directory` and sign the list into `manifest.json`."""
    write_whole(directory / SPEC_NAME, spec.canonical_json())
    files = tuple(_describe(path, directory) for path in _files_of(directory))
    manifest = Manifest(run_id=spec.run_id, authority=identity.peer_id, files=files)
    payload = manifest.model_dump_json()
    signed = SignedManifest(payload=payload, signature=identity.sign(payload.encode()).hex())
    write_whole(directory / MANIFEST_NAME, signed.model_dump_json().encode())
    return signed


def parse_manifest(raw: bytes) -> SignedManifest:
    """Decode a manifest received from the network; raises `OperationFailed`."""
    if len(raw) > MAX_MANIFEST_BYTES:
        raise OperationFailed(
            f"the run bundle's manifest is {len(raw)} bytes long, more than {MAX_MANIFEST_BYTES}"
        )
    try:
        return SignedManifest.model_validate_json(raw)
    except ValidationError as error:
        raise OperationFailed(f"the run bundle's manifest is malformed: {error.errors()[0]['msg']}") from None


def load_spec_of(directory: Path, manifest: Manifest) -> RunSpec:
    """The run spec inside a complete bundle; raises if it is not the spec that the run id names."""
    values = json.loads((directory / SPEC_NAME).read_bytes())
    spec = parse_spec(values, origin="the run bundle's spec (made by another version of Artel?)")
    if spec.run_id != manifest.run_id:
        raise OperationFailed(
            f"the run bundle describes {manifest.run_id}, but its spec reads here as {spec.run_id}: "
            "install the version of Artel that the coordinator runs"
        )
    return spec


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


class BundleCache:
    """Files by digest under one folder, shared by all runs a peer has ever joined.

    CACHE/blobs/<sha256>            complete files; `<sha256>.partial` while they arrive
    CACHE/bundles/<fingerprint>/    a bundle laid out by names, hard links into blobs/
    """

    def __init__(self, directory: Path):
        self.blobs = directory / "blobs"
        self.bundles = directory / "bundles"
        try:
            self.blobs.mkdir(parents=True, exist_ok=True)
            self.bundles.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OperationFailed(
                f"the cache folder {directory} cannot be used ({error.strerror}): choose another with --cache-dir"
            ) from None

    def partial_path(self, file: BundleFile) -> Path:
        """Where a file is written while it arrives."""
        return self.blobs / f"{file.sha256}.partial"

    @contextmanager
    def locked(self, file: BundleFile) -> Iterator[None]:
        """Keep other processes from fetching the same file at the same time; they wait."""
        with (self.blobs / f"{file.sha256}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def is_complete(self, file: BundleFile) -> bool:
        """Whether the file is here and intact; a damaged one is deleted so that it is fetched again."""
        path = self.blobs / file.sha256
        if not path.is_file():
            return False
        if path.stat().st_size == file.size and file_digest(path) == file.sha256:
            return True
        path.unlink()
        return False

    def accept(self, file: BundleFile) -> None:
        """Take over a file that has fully arrived; raises `OperationFailed` if it is not what was signed."""
        partial = self.partial_path(file)
        if partial.stat().st_size != file.size or file_digest(partial) != file.sha256:
            partial.unlink()
            raise OperationFailed(
                f"the bundle file {file.name} does not match its signed digest: "
                "the sender's copy is damaged; restart the coordinator, or join through another peer"
            )
        os.replace(partial, self.blobs / file.sha256)

    def find(self, fingerprint: str) -> tuple[SignedManifest, Path] | None:
        """The bundle with this fingerprint, if it was fetched before and every file is intact."""
        try:
            signed = parse_manifest((self.bundles / fingerprint / MANIFEST_NAME).read_bytes())
        except (OSError, OperationFailed):
            return None
        if signed.fingerprint != fingerprint or not all(map(self.is_complete, signed.open().files)):
            return None
        return signed, self.lay_out(signed)

    def lay_out(self, signed: SignedManifest) -> Path:
        """A folder with all files of the bundle under their names; one that is intact is left untouched."""
        target = self.bundles / signed.fingerprint
        files = signed.open().files
        # a peer that reads the folder must not see another one replace it
        with (self.bundles / f"{signed.fingerprint}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not all(_same_file(self.blobs / file.sha256, target / file.name) for file in files):
                self._lay_out_anew(signed, target)
        return target

    def _lay_out_anew(self, signed: SignedManifest, target: Path) -> None:
        staging = Path(tempfile.mkdtemp(dir=self.bundles, prefix=".staging-"))
        for file in signed.open().files:
            path = staging / file.name
            path.parent.mkdir(exist_ok=True)
            _link_or_copy(self.blobs / file.sha256, path)
        (staging / MANIFEST_NAME).write_text(signed.model_dump_json())
        if target.exists():
            discarded = Path(tempfile.mkdtemp(dir=target.parent, prefix=".discarded-"))
            os.replace(target, discarded / target.name)
            shutil.rmtree(discarded)
        os.replace(staging, target)


def shard_paths(directory: Path) -> list[Path]:
    """The training shards of a bundle, in the order of their names."""
    return sorted((directory / SHARDS_FOLDER).glob("*.arrow"))


def _describe(path: Path, directory: Path) -> BundleFile:
    name = path.relative_to(directory).as_posix()
    return BundleFile(name=name, size=path.stat().st_size, sha256=file_digest(path))


def _files_of(directory: Path) -> Iterable[Path]:
    return sorted(
        path for path in directory.rglob("*") if path.is_file() and path != directory / MANIFEST_NAME
    )


def _same_file(blob: Path, path: Path) -> bool:
    # blobs are named by their digest; where the disk knows no hard links, they were copied
    return path.is_file() and (os.path.samefile(blob, path) or file_digest(path) == blob.name)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
