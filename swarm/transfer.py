"""Serves and fetches the run bundle over libp2p, before the joining peer knows anything about the run.

A fetch is resumable (files arrive as `.partial` and continue at their length), every file is checked against the
signed digest list, and nothing is taken that the list does not announce: not a byte more, not another name.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Annotated

from google.protobuf.wrappers_pb2 import BytesValue
from hivemind.p2p import P2P, P2PContext, P2PDaemonError, P2PHandlerError, PeerID
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from swarm.addresses import Address
from swarm.admission import MAX_TICKET_BYTES, Admission, NotAdmitted
from swarm.bundle import MANIFEST_NAME, BundleCache, BundleFile, SignedManifest, parse_manifest
from swarm.credentials import Credentials
from swarm.dht import STARTUP_TIMEOUT_SECONDS, explain_daemon_error
from swarm.errors import BadInput, OperationFailed
from swarm.lifeline import daemons_tied_to_us
from swarm.records import Hex
from swarm.service import MAX_BROKEN_STREAMS, ServiceThread, add_stream_handler, add_unary_handler
from swarm.sockets import name_our_sockets

MANIFEST_HANDLER = "artel.bundle.manifest"
FILE_HANDLER = "artel.bundle.file"
CHUNK_BYTES = 2**18
SILENCE_SECONDS = 30.0

Progress = Callable[[str, int, int], None]  # file name, bytes so far, bytes in all


class FileRequest(BaseModel):
    """Asks for one file of the bundle from a byte on.

    :param ticket: of whoever asks, as JSON
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    sha256: Hex
    offset: Annotated[int, Field(ge=0, lt=2**40)]
    ticket: Annotated[str, Field(max_length=MAX_TICKET_BYTES)] = ""


class Refusal(BaseModel):
    """What is answered instead of a manifest to whoever may not have it: the reason, in words."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    refused: Annotated[str, Field(min_length=1, max_length=500)]


class BundleServer:
    """Answers requests for one complete bundle in `directory`; any participant can run it.

    :param admission: who may have it; whoever asks shows a ticket with the request
    """

    def __init__(self, directory: Path, admission: Admission):
        self._admission = admission
        self._manifest = (directory / MANIFEST_NAME).read_bytes()
        files = parse_manifest(self._manifest).open().files
        self._paths = {file.sha256: directory / file.name for file in files}

    def start(self, service: ServiceThread) -> None:
        """Register the two handlers."""
        service.run(add_unary_handler(service.p2p, MANIFEST_HANDLER, self._send_manifest), timeout=10)
        service.run(add_stream_handler(service.p2p, FILE_HANDLER, self._send_file), timeout=10)

    async def _send_manifest(self, request: bytes, context: P2PContext) -> bytes:
        try:
            self._admission.require(str(context.remote_id), request)
        except NotAdmitted as error:
            return Refusal(refused=str(error)).model_dump_json().encode()
        return self._manifest

    async def _send_file(self, request: bytes, context: P2PContext) -> AsyncIterator[bytes]:
        wanted = FileRequest.model_validate_json(request)
        self._admission.require(str(context.remote_id), wanted.ticket.encode())
        with self._paths[wanted.sha256].open("rb") as file:
            file.seek(wanted.offset)
            while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                yield chunk


def fetch_bundle(
    addresses: Sequence[Address],
    cache: BundleCache,
    *,
    fingerprint: str | None = None,
    authority: str | None = None,
    progress: Progress | None = None,
    credentials: Credentials | None = None,
) -> tuple[SignedManifest, Path]:
    """Get the bundle of the run that the first contact serves.

    :param fingerprint: expected fingerprint of the run; without it the first contact must be the authority itself,
        whose peer id in the address is the root of trust
    :param authority: peer id that must have signed the bundle, when that is known otherwise
    :param credentials: what to show where the run is by invitation
    :returns: the signed manifest and a folder with all files of the bundle
    :raises BadInput: the bundle is signed by somebody else than the address names, or is another run, or is not for us
    :raises OperationFailed: nobody answered, or not the coordinator that made our invitation; a file was damaged; the
        disk is full
    """
    fetching = _fetch_bundle(
        addresses, cache, fingerprint, authority, progress or (lambda *_: None), credentials
    )
    return asyncio.run(fetching)


async def _fetch_bundle(
    addresses: Sequence[Address],
    cache: BundleCache,
    fingerprint: str | None,
    authority: str | None,
    progress: Progress,
    credentials: Credentials | None,
) -> tuple[SignedManifest, Path]:
    p2p = await _connect(addresses, credentials)
    try:
        errors = []
        for address in addresses:
            try:
                signed = await fetch_manifest(p2p, address, credentials)
                require_trusted(signed, address, fingerprint, authority)
                for file in signed.open().files:
                    with cache.locked(file):
                        if not cache.is_complete(file):
                            await _fetch_file(p2p, address, file, cache, progress, credentials)
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


async def _connect(addresses: Sequence[Address], credentials: Credentials | None) -> P2P:
    name_our_sockets()
    identity = {"identity_path": str(credentials.identity_path)} if credentials is not None else {}
    try:
        with daemons_tied_to_us():
            return await P2P.create(
                initial_peers=[address.text for address in addresses],
                dht_mode="client",
                startup_timeout=STARTUP_TIMEOUT_SECONDS,
                check_if_identity_free=False,
                **identity,
            )
    except P2PDaemonError as error:
        raise OperationFailed(f"cannot connect to the swarm: {explain_daemon_error(error)}") from None


async def fetch_manifest(
    p2p: P2P, address: Address, credentials: Credentials | None = None
) -> SignedManifest:
    """What the participant at the address serves, not checked yet; raises `BadInput` if it is not for us."""
    if credentials is None:
        answer = await _ask_for_manifest(p2p, address, b"")
    else:
        if credentials.ticket is None and credentials.token is not None:
            await credentials.redeem(p2p)
        answer = await _ask_for_manifest(p2p, address, credentials.show())
        if _refusal(answer) and credentials.token is not None:  # the kept ticket no longer holds
            await credentials.redeem(p2p)
            answer = await _ask_for_manifest(p2p, address, credentials.show())
    if refusal := _refusal(answer):
        raise BadInput(refusal)
    return parse_manifest(answer)


async def _ask_for_manifest(p2p: P2P, address: Address, ticket: bytes) -> bytes:
    call = p2p.call_protobuf_handler(
        PeerID.from_base58(address.peer_id), MANIFEST_HANDLER, BytesValue(value=ticket), BytesValue
    )
    return (await asyncio.wait_for(call, SILENCE_SECONDS)).value


def _refusal(answer: bytes) -> str:
    try:
        return Refusal.model_validate_json(answer).refused
    except ValidationError:
        return ""


async def _fetch_file(
    p2p: P2P,
    address: Address,
    file: BundleFile,
    cache: BundleCache,
    progress: Progress,
    credentials: Credentials | None,
) -> None:
    partial = cache.partial_path(file)
    received = partial.stat().st_size if partial.exists() else 0
    if received > file.size:
        partial.unlink()
        received = 0
    partial.touch()
    broken_off = 0
    while received < file.size:
        request = FileRequest(
            sha256=file.sha256,
            offset=received,
            ticket=credentials.show().decode() if credentials is not None else "",
        )
        before, received = received, await _fetch_rest(p2p, address, file, request, partial, progress)
        broken_off = broken_off + 1 if received == before else 0
        if broken_off == MAX_BROKEN_STREAMS:
            raise ConnectionError(
                f"the connection ended after {received} of {file.size} bytes of {file.name}"
            )
    cache.accept(file)


async def _fetch_rest(
    p2p: P2P, address: Address, file: BundleFile, wanted: FileRequest, partial: Path, progress: Progress
) -> int:
    """Append what one stream brings of the file, and say how long the file is now.

    A stream that breaks looks like one that ends: only the length tells.
    """
    received = wanted.offset
    request = BytesValue(value=wanted.model_dump_json().encode())
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
