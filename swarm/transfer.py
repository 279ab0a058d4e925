"""Serves and fetches the run bundle over libp2p, before the joining peer knows anything about the run.

A fetch is resumable (files arrive as `.partial` and continue at their length), every file is checked against the
signed digest list, and nothing is taken that the list does not announce: not a byte more, not another name.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PContext, P2PDaemonError, P2PHandlerError, PeerID

from swarm.addresses import Address
from swarm.bundle import MANIFEST_NAME, BundleCache, BundleFile, SignedManifest, parse_manifest
from swarm.dht import STARTUP_TIMEOUT_SECONDS, explain_daemon_error
from swarm.errors import BadInput, OperationFailed
from swarm.lifeline import daemons_tied_to_us
from swarm.service import ServiceThread, add_stream_handler, add_unary_handler
from swarm.sockets import name_our_sockets

MANIFEST_HANDLER = "artel.bundle.manifest"
FILE_HANDLER = "artel.bundle.file"
CHUNK_BYTES = 2**18
SILENCE_SECONDS = 30.0
MAX_BROKEN_STREAMS = 3  # in a row, without a byte: a single stream breaks now and then on a busy machine

Progress = Callable[[str, int, int], None]  # file name, bytes so far, bytes in all


class BundleServer:
    """Answers requests for one complete bundle in `directory`; any participant can run it."""

    def __init__(self, directory: Path):
        self._manifest = (directory / MANIFEST_NAME).read_bytes()
        files = parse_manifest(self._manifest).open().files
        self._paths = {file.sha256: directory / file.name for file in files}

    def start(self, service: ServiceThread) -> None:
        """Register the two handlers."""
        service.run(add_unary_handler(service.p2p, MANIFEST_HANDLER, self._send_manifest), timeout=10)
        service.run(add_stream_handler(service.p2p, FILE_HANDLER, self._send_file), timeout=10)

    async def _send_manifest(self, _request: bytes, _context: P2PContext) -> bytes:
        return self._manifest

    async def _send_file(self, request: bytes, _context: P2PContext) -> AsyncIterator[bytes]:
        wanted = json.loads(request)
        path, offset = self._paths[wanted["sha256"]], int(wanted["offset"])
        with path.open("rb") as file:
            file.seek(offset)
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk


def fetch_bundle(
    addresses: Sequence[Address],
    cache: BundleCache,
    *,
    fingerprint: str | None = None,
    authority: str | None = None,
    progress: Progress | None = None,
) -> tuple[SignedManifest, Path]:
    """Get the bundle of the run that the first contact serves.

    :param fingerprint: expected fingerprint of the run; without it the first contact must be the authority itself,
        whose peer id in the address is the root of trust
    :param authority: peer id that must have signed the bundle, when that is known otherwise
    :returns: the signed manifest and a folder with all files of the bundle
    :raises BadInput: the bundle is signed by somebody else than the address names, or is another run
    :raises OperationFailed: nobody answered, a file was damaged, or the disk is full
    """
    return asyncio.run(_fetch_bundle(addresses, cache, fingerprint, authority, progress or (lambda *_: None)))


async def _fetch_bundle(
    addresses: Sequence[Address],
    cache: BundleCache,
    fingerprint: str | None,
    authority: str | None,
    progress: Progress,
) -> tuple[SignedManifest, Path]:
    p2p = await _connect(addresses)
    try:
        errors = []
        for address in addresses:
            try:
                signed = await _fetch_manifest(p2p, address)
                require_trusted(signed, address, fingerprint, authority)
                for file in signed.open().files:
                    with cache.locked(file):
                        if not cache.is_complete(file):
                            await _fetch_file(p2p, address, file, cache, progress)
                return signed, cache.lay_out(signed)
            except (
                P2PHandlerError,
                P2PDaemonError,
                asyncio.TimeoutError,
                ConnectionError,
                EOFError,
            ) as error:
                errors.append(f"{address.text}: {explain_daemon_error(error)}")
        raise OperationFailed(
            f"no address served the run bundle ({'; '.join(errors)}): check that the run is up"
        )
    except OSError as error:
        raise OperationFailed(
            f"the run bundle cannot be stored in {cache.blobs} ({error.strerror})"
        ) from None
    finally:
        await p2p.shutdown()


def require_trusted(
    signed: SignedManifest, address: Address, fingerprint: str | None, authority: str | None = None
) -> None:
    """Raise unless the manifest is the run with this fingerprint, or is signed by the authority.

    Without an authority that is known otherwise, it is the peer that the address names.
    """
    if fingerprint is not None:
        if signed.fingerprint != fingerprint:
            raise BadInput(
                f"{address.text} serves run {signed.fingerprint[:12]}…, not {fingerprint[:12]}… as --run says: "
                "ask for the current `peer join` line"
            )
    elif authority is not None:
        if signed.open().authority != authority:
            raise BadInput(
                f"{address.text} serves a run of coordinator {signed.open().authority}, not of {authority}: "
                "give the address of another participant, or the right key"
            )
    elif signed.open().authority != address.peer_id:
        raise BadInput(
            f"{address.text} is not the coordinator of this run, so its word alone is not enough: "
            "use the whole `peer join` line, with --run FINGERPRINT, or the coordinator's address"
        )


async def _connect(addresses: Sequence[Address]) -> P2P:
    name_our_sockets()
    try:
        with daemons_tied_to_us():
            return await P2P.create(
                initial_peers=[address.text for address in addresses],
                dht_mode="client",
                startup_timeout=STARTUP_TIMEOUT_SECONDS,
            )
    except P2PDaemonError as error:
        raise OperationFailed(f"cannot connect to the swarm: {explain_daemon_error(error)}") from None


async def _fetch_manifest(p2p: P2P, address: Address) -> SignedManifest:
    call = p2p.call_protobuf_handler(
        PeerID.from_base58(address.peer_id), MANIFEST_HANDLER, BytesValue(value=b""), BytesValue
    )
    answer = await asyncio.wait_for(call, SILENCE_SECONDS)
    return parse_manifest(answer.value)


async def _fetch_file(
    p2p: P2P, address: Address, file: BundleFile, cache: BundleCache, progress: Progress
) -> None:
    partial = cache.partial_path(file)
    received = partial.stat().st_size if partial.exists() else 0
    if received > file.size:
        partial.unlink()
        received = 0
    partial.touch()
    broken_off = 0
    while received < file.size:
        before, received = received, await _fetch_rest(p2p, address, file, partial, received, progress)
        broken_off = broken_off + 1 if received == before else 0
        if broken_off == MAX_BROKEN_STREAMS:
            raise ConnectionError(
                f"the connection ended after {received} of {file.size} bytes of {file.name}"
            )
    cache.accept(file)


async def _fetch_rest(
    p2p: P2P, address: Address, file: BundleFile, partial: Path, received: int, progress: Progress
) -> int:
    """Append what one stream brings of the file, and say how long the file is now.

    A stream that breaks looks like one that ends: only the length tells.
    """
    request = BytesValue(value=json.dumps({"sha256": file.sha256, "offset": received}).encode())
    stream = await p2p.iterate_protobuf_handler(
        PeerID.from_base58(address.peer_id), FILE_HANDLER, request, BytesValue
    )
    with partial.open("ab") as output:
        async for chunk in _until_silent(stream):
            if received + len(chunk) > file.size:
                raise OperationFailed(
                    f"{address.text} sends more of {file.name} than was signed: join elsewhere"
                )
            output.write(chunk)
            received += len(chunk)
            progress(file.name, received, file.size)
    return received


async def _until_silent(stream: AsyncIterator[BytesValue]) -> AsyncIterator[bytes]:
    iterator = stream.__aiter__()
    while True:
        try:
            message = await asyncio.wait_for(iterator.__anext__(), SILENCE_SECONDS)
        except StopAsyncIteration:
            return
        yield message.value
