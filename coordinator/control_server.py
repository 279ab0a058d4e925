"""Serves the control API with health checking and reflection; plain on loopback, with TLS where it is asked for."""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from coordinator import control_pb2_grpc
from coordinator.control_service import MAX_WATCHERS, SERVICE, ControlService, TokenCheck
from coordinator.health_check import SteadyHealth
from coordinator.host_port import bind, parse_host_port
from swarm.errors import BadInput, OperationFailed

logger = logging.getLogger(__name__)

CALLS_BESIDE_WATCHERS = 8
STOP_SECONDS = 1.0
LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Tls:
    """PEM files of the server's certificate chain and its private key."""

    certificate: Path
    key: Path

    def require_usable(self) -> None:
        """Raise `BadInput` if they are no such pair. Starts nothing of gRPC, which does not survive a fork."""
        try:
            # without a password, OpenSSL would ask for that of an encrypted key
            ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
                self.certificate, self.key, password=""
            )
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise BadInput(
                f"--control-tls-cert {self.certificate} and --control-tls-key {self.key} cannot be used ({reason}): "
                "give PEM files of a certificate and its own key, which is not encrypted"
            ) from None

    def credentials(self) -> grpc.ServerCredentials:
        """Read both; raises `OSError`."""
        return grpc.ssl_server_credentials([(self.key.read_bytes(), self.certificate.read_bytes())])


def bind_control(place: str) -> socket.socket:
    """A socket that listens at HOST:PORT, to see whether the API could; raises `ArtelError`."""
    try:
        return bind(*parse_host_port(place, "--control"))
    except OSError as error:
        raise _cannot_listen(f"{place} ({error.strerror or error})") from None


def _cannot_listen(place: str) -> OperationFailed:
    return OperationFailed(
        f"the control API cannot listen on {place}: give another address with --control HOST:PORT, "
        "port 0 picks a free one"
    )


class ControlServer:
    """The API of one run on one port.

    >>> server = ControlServer(ControlService(run), token, "127.0.0.1:0"); server.start()     # doctest: +SKIP
    >>> server.address                                                                        # doctest: +SKIP
    '127.0.0.1:40031'
    """

    def __init__(self, service: ControlService, token: str, place: str, tls: Tls | None = None):
        self._host, port = parse_host_port(place, "--control")
        self._service = service
        strangers, owners = (
            ThreadPoolExecutor(MAX_WATCHERS + CALLS_BESIDE_WATCHERS, thread_name_prefix=name)
            for name in ("control-open", "control")
        )
        self._server = grpc.server(
            strangers,
            interceptors=[TokenCheck(token, owners)],
            # a second server on the same port must be told so
            options=[("grpc.so_reuseport", 0)],
        )
        control_pb2_grpc.add_ControlServicer_to_server(service, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(SteadyHealth([SERVICE]), self._server)
        names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, self._server)
        self._port = self._bind(port, tls)
        if tls is None and self._host not in LOOPBACK:
            logger.warning("the control API on %s is not encrypted: give --control-tls-cert and -key", place)

    @property
    def address(self) -> str:
        """Where clients on this machine find it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"[{host}]:{self._port}" if ":" in host else f"{host}:{self._port}"

    def start(self) -> None:
        """Begin to answer."""
        self._server.start()

    def stop(self) -> None:
        """End all streams; calls in progress get a moment."""
        self._service.stopping.set()
        stopped: threading.Event = self._server.stop(STOP_SECONDS)
        stopped.wait(2 * STOP_SECONDS)

    def _bind(self, port: int, tls: Tls | None) -> int:
        host = f"[{self._host}]" if ":" in self._host else self._host
        place = f"{host}:{port}"
        try:
            if tls is not None:
                return self._server.add_secure_port(place, tls.credentials())
            return self._server.add_insecure_port(place)
        except RuntimeError:
            raise _cannot_listen(place) from None
