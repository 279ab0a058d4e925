"""The caller's side of the control API: where it is, the token, and errors as one line for a person."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from coordinator import control_pb2_grpc
from coordinator.host_port import parse_host_port
from coordinator.run_directory import RunDirectory, find_run_directory
from swarm.errors import ArtelError, BadInput, OperationFailed

TOKEN_VARIABLE = "ARTEL_CONTROL_TOKEN"
CALL_SECONDS = 20.0


@dataclass(frozen=True)
class ControlPlace:
    """Where a run is controlled.

    :param run_dir: its directory on this machine, which holds address and token
    :param address: HOST:PORT instead, of a run elsewhere
    :param token_file: file with the token; by default that of the run directory, or ARTEL_CONTROL_TOKEN
    :param tls_ca: PEM file of who signed the server's certificate; without it nothing is encrypted
    """

    run_dir: Path | None = None
    address: str | None = None
    token_file: Path | None = None
    tls_ca: Path | None = None

    def find_address(self) -> str:
        """HOST:PORT of the API; raises `BadInput` or `OperationFailed`."""
        if self.address is not None:
            parse_host_port(self.address, "--control")
            return self.address
        directory = RunDirectory(find_run_directory(self.run_dir))
        try:
            return directory.control_path.read_text().strip()
        except OSError:
            raise OperationFailed(
                f"{directory.path} has no control.txt yet: start `coordinator run`, or wait a moment"
            ) from None

    def find_token(self) -> str | None:
        """The token, if one can be found."""
        if self.token_file is not None:
            return _read(self.token_file, "--token-file", "the right file")
        if token := os.environ.get(TOKEN_VARIABLE):
            return token
        if self.address is not None and self.run_dir is None:
            return None
        path = RunDirectory(find_run_directory(self.run_dir)).token_path
        return _read(path, "the token", "another with --token-file") if path.exists() else None


class ControlClient:
    """Calls methods of a run's control API; every failure is an `ArtelError`.

    >>> client = ControlClient(ControlPlace(run_dir=Path("runs/demo")))                    # doctest: +SKIP
    >>> client.call(lambda api, **how: api.Pause(control_pb2.PauseRequest(), **how))       # doctest: +SKIP
    """

    def __init__(self, place: ControlPlace):
        self.address, token = place.find_address(), place.find_token()
        self._metadata = [("authorization", f"Bearer {token}")] if token else []
        self._channel = _open_channel(self.address, place.tls_ca)
        self._api = control_pb2_grpc.ControlStub(self._channel)

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_error: object) -> None:
        self._channel.close()

    def call(self, method: Callable[..., Any], timeout: float = CALL_SECONDS) -> Any:
        """`method(api, timeout=…, metadata=…)` of the generated stub."""
        with self._explained():
            return method(self._api, timeout=timeout, metadata=self._metadata)

    def stream(self, method: Callable[..., Any]) -> Iterator[Any]:
        """The messages of a method that answers with many."""
        with self._explained():
            yield from method(self._api, metadata=self._metadata)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except grpc.RpcError as error:
            raise _explain(error, self.address, token_shown=bool(self._metadata)) from None


def _open_channel(address: str, tls_ca: Path | None) -> grpc.Channel:
    # a proxy of the environment would be asked to reach 127.0.0.1 as well
    options = [("grpc.enable_http_proxy", 0)]
    if tls_ca is None:
        return grpc.insecure_channel(address, options=options)
    authority = _read(tls_ca, "--tls-ca", "the right PEM file").encode()
    return grpc.secure_channel(address, grpc.ssl_channel_credentials(authority), options=options)


def _explain(error: grpc.RpcError, address: str, token_shown: bool) -> ArtelError:
    code, words = error.code(), error.details() or ""  # type: ignore[attr-defined]
    if code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND):
        return BadInput(words)
    if code is grpc.StatusCode.UNAUTHENTICATED and token_shown:
        return BadInput(
            f"the coordinator at {address} has another token: give that in control.token of its run directory with "
            f"--token-file, or in {TOKEN_VARIABLE}"
        )
    if code is grpc.StatusCode.UNAUTHENTICATED:
        return BadInput(f"{words}; give it with --token-file, or in {TOKEN_VARIABLE}")
    if code is grpc.StatusCode.UNAVAILABLE:
        return OperationFailed(
            f"no control API answers at {address}: is the coordinator running there? does it use TLS (--tls-ca)? "
            f"({words[:150]})"
        )
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return OperationFailed(f"the coordinator at {address} did not answer in time: look at its log")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return OperationFailed(f"what answers at {address} is another version of Artel, or not a coordinator")
    return OperationFailed(words or str(code))


def _read(path: Path, what: str, remedy: str) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{what} {path} cannot be read ({reason}): give {remedy}") from None
