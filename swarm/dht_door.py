"""The door of a DHT node in a run by invitation: every request and every answer shows its sender's ticket.

libp2p says who really sent a message, the ticket says that this peer id may; one without the other opens nothing, so
neither a stranger nor a replayed request gets in. The ticket travels in the field that hivemind has for tokens.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

from hivemind.dht import protocol
from hivemind.p2p import P2P, P2PContext, PeerID
from hivemind.proto import dht_pb2

from swarm.admission import Admission, NotAdmitted

EMPTY_ANSWERS = {
    "rpc_ping": dht_pb2.PingResponse,
    "rpc_store": dht_pb2.StoreResponse,
    "rpc_find": dht_pb2.FindResponse,
}
Call = Callable[..., Awaitable[Any]]


class DHTProtocol(protocol.DHTProtocol):
    """hivemind's protocol behind the door. The name is part of the name under which libp2p knows its calls."""

    admission: ClassVar[Admission]

    async def add_p2p_handlers(self, p2p: P2P, wrapper: Any = None, **kwargs: Any) -> None:
        """Serve others through the door."""
        await super().add_p2p_handlers(
            p2p, _Doorkeeper(self if wrapper is None else wrapper, self.admission), **kwargs
        )

    def get_stub(self, peer: PeerID) -> Any:
        """Calls of one peer's node, through its door."""
        return _Visitor(super().get_stub(peer), peer, self.admission)


class _Doorkeeper:
    """Answers only whom the run admits, and shows our own ticket with the answer."""

    def __init__(self, servicer: Any, admission: Admission):
        self._servicer, self._admission = servicer, admission

    def __getattr__(self, name: str) -> Call:
        return functools.partial(self._answer, name)

    async def _answer(self, name: str, request: Any, context: P2PContext) -> Any:
        try:
            self._admission.require(str(context.remote_id), request.auth.client_access_token.public_key)
        except NotAdmitted:
            # an answer with nothing in it: whoever knocks a thousand times must not fill our log
            return EMPTY_ANSWERS[name]()
        response = await getattr(self._servicer, name)(request, context)
        response.auth.service_access_token.public_key = self._admission.show()
        return response


class _Visitor:
    """Shows our ticket with each request, and believes no answer without the other's."""

    def __init__(self, stub: Any, peer: PeerID, admission: Admission):
        self._stub, self._peer, self._admission = stub, str(peer), admission

    def __getattr__(self, name: str) -> Call:
        return functools.partial(self._call, getattr(self._stub, name))

    async def _call(self, method: Call, request: Any, *args: Any, **kwargs: Any) -> Any:
        request.auth.client_access_token.public_key = self._admission.show()
        response = await method(request, *args, **kwargs)
        self._admission.require(self._peer, response.auth.service_access_token.public_key)
        return response


def protocol_behind(admission: Admission) -> type[protocol.DHTProtocol]:
    """The protocol of one run's nodes: a class, because hivemind makes the instance itself."""
    return type("DHTProtocol", (DHTProtocol,), {"admission": admission})
