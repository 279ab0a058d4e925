"""gRPC's standard health checking for a server whose services are well from its start to its end.

grpcio-health-checking sends to watchers with a lock in its hands that the thread which would see the sending done needs
as soon as any watcher goes: both then wait for ever, and the server with them. Here nothing changes, so none is
needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

Response = health_pb2.HealthCheckResponse


class SteadyHealth(health_pb2_grpc.HealthServicer):
    """Says `SERVING` of some services, and of the whole server, as long as the server runs.

    Streams of watchers hold no threads; they end with the server.
    """

    def __init__(self, services: Collection[str]):
        self._services = {"", *services}

    def Check(self, request: Any, context: grpc.ServicerContext) -> Any:
        """Once; `NOT_FOUND` for services that are not there."""
        if request.service not in self._services:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return Response(status=Response.SERVING)

    def Watch(
        self, request: Any, _context: grpc.ServicerContext, send_response_callback: Callable[[Any], None]
    ) -> None:
        """And tell of changes, of which there are none."""
        known = request.service in self._services
        send_response_callback(Response(status=Response.SERVING if known else Response.SERVICE_UNKNOWN))

    # how grpc is told not to wait in a thread for the end of a stream
    Watch.experimental_non_blocking = True  # type: ignore[attr-defined]
