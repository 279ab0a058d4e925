"""The control API's methods over one run: what is asked goes to the run's parts, errors become status codes.

A new method is a line in `control.proto`, a method here, and, if it only reads, its name in `READING`: everything else
but health checking needs the token. Who has it is served by threads of its own, see `TokenCheck`.
"""

from __future__ import annotations

import functools
import hmac
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, cast, get_args

import grpc
from grpc_health.v1 import health

from coordinator import control_pb2, control_pb2_grpc
from coordinator.admission_desk import AdmissionDesk
from coordinator.checkpoints import Checkpoint
from coordinator.control_messages import change_message, plan_message, to_message
from coordinator.settings_desk import NotNow, SettingsDesk
from coordinator.status import PEER_STATES, CheckpointStatus, PeerStatus, RunStatus
from swarm.errors import ArtelError, BadInput
from swarm.settings import SettingsChange
from swarm.ticket import Role

SERVICE = "artel.control.v1.Control"
READING = frozenset({"GetRun", "ListPeers", "GetPeer", "Watch", "ListCheckpoints", "GetSettings"})
# of those who have the token, and again of all others
MAX_WATCHERS = 16
SHORTEST_PERIOD, LONGEST_PERIOD = 0.2, 60.0
LONGEST_SILENCE_SECONDS = 10.0
DEFAULT_INVITATION_SECONDS = 7 * 24 * 3600.0
MAX_INVITATION_SECONDS = 366 * 24 * 3600.0
MAX_INVITED_MACHINES = 10_000
MAX_NAME_CHARACTERS = 64
MAX_REASON_CHARACTERS = 200

# of the call that is being served
_has_token: ContextVar[bool] = ContextVar("has_token", default=False)


class NotFound(BadInput):
    """What was asked for does not exist."""


@dataclass(frozen=True)
class ControlledRun:
    """The parts of a running coordinator that the API reaches.

    :param status: the run now
    :param desk: takes changes of settings
    :param admission: invites and evicts
    :param request_checkpoint: a checkpoint as soon as it can be made
    :param describe_checkpoint: how one is shown
    """

    status: Callable[[], RunStatus]
    desk: SettingsDesk
    admission: AdmissionDesk
    request_checkpoint: Callable[[], Future[Checkpoint]]
    describe_checkpoint: Callable[[Checkpoint], CheckpointStatus]


class ControlService(control_pb2_grpc.ControlServicer):
    """The methods of `control.proto`, each called in a thread of the server."""

    def __init__(self, run: ControlledRun):
        self.run = run
        self.stopping = threading.Event()
        self._watchers = {known: threading.BoundedSemaphore(MAX_WATCHERS) for known in (True, False)}

    def GetRun(self, request: Any, context: grpc.ServicerContext) -> control_pb2.Run:
        return to_message(self.run.status(), control_pb2.Run())

    def ListPeers(self, request: Any, context: grpc.ServicerContext) -> control_pb2.ListPeersResponse:
        with _explained(context):
            unknown = sorted(set(request.states) - set(PEER_STATES))
            if unknown:
                raise BadInput(f"{unknown[0]!r} is no state of a peer: these are {', '.join(PEER_STATES)}")
        peers = [
            peer for peer in self.run.status().peers if not request.states or peer.state in request.states
        ]
        return control_pb2.ListPeersResponse(peers=[to_message(peer, control_pb2.Peer()) for peer in peers])

    def GetPeer(self, request: Any, context: grpc.ServicerContext) -> control_pb2.Peer:
        with _explained(context):
            return to_message(self._find_peer(request.peer), control_pb2.Peer())
        return control_pb2.Peer()

    def Watch(self, request: Any, context: grpc.ServicerContext) -> Iterator[control_pb2.Run]:
        period = request.period if request.HasField("period") else 1.0
        with _explained(context):
            if not SHORTEST_PERIOD <= period <= LONGEST_PERIOD:
                raise BadInput(f"period must lie between {SHORTEST_PERIOD} and {LONGEST_PERIOD} seconds")
        watchers = self._watchers[_has_token.get()]
        if not watchers.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{MAX_WATCHERS} callers watch already")
        try:
            yield from self._changes(context, period)
        finally:
            watchers.release()

    def ListCheckpoints(
        self, request: Any, context: grpc.ServicerContext
    ) -> control_pb2.ListCheckpointsResponse:
        found = self.run.status().checkpoints
        messages = [to_message(checkpoint, control_pb2.Checkpoint()) for checkpoint in found]
        return control_pb2.ListCheckpointsResponse(checkpoints=messages)

    def GetSettings(self, request: Any, context: grpc.ServicerContext) -> control_pb2.SettingsPlan:
        return plan_message(self.run.desk.book, self.run.status().global_step)

    def MakeCheckpoint(self, request: Any, context: grpc.ServicerContext) -> control_pb2.Checkpoint:
        wish = self.run.request_checkpoint()
        with _explained(context):
            checkpoint = self._wait_for(wish, context)
            return to_message(self.run.describe_checkpoint(checkpoint), control_pb2.Checkpoint())
        return control_pb2.Checkpoint()

    def Pause(self, request: Any, context: grpc.ServicerContext) -> control_pb2.SettingsChange:
        return _changed(context, self.run.desk.pause)

    def Resume(self, request: Any, context: grpc.ServicerContext) -> control_pb2.SettingsChange:
        return _changed(context, self.run.desk.resume)

    def Finish(self, request: Any, context: grpc.ServicerContext) -> control_pb2.SettingsChange:
        return _changed(context, self.run.desk.finish)

    def ChangeSettings(self, request: Any, context: grpc.ServicerContext) -> control_pb2.SettingsChange:
        given = {field.name: value for field, value in request.ListFields()}
        return _changed(context, lambda: self.run.desk.change(given))

    def Invite(self, request: Any, context: grpc.ServicerContext) -> control_pb2.InviteResponse:
        with _explained(context):
            name, role = request.name.strip(), request.role if request.HasField("role") else "peer"
            seconds = request.seconds if request.HasField("seconds") else DEFAULT_INVITATION_SECONDS
            machines = request.machines if request.HasField("machines") else 1
            if not 0 < len(name) <= MAX_NAME_CHARACTERS:
                raise BadInput(f"the name must have 1 to {MAX_NAME_CHARACTERS} characters")
            if role not in get_args(Role):
                raise BadInput(f"{role!r} is no role: these are {', '.join(get_args(Role))}")
            if not 0 < seconds <= MAX_INVITATION_SECONDS:
                raise BadInput("an invitation lasts more than 0 and at most 366 days")
            if not 0 < machines <= MAX_INVITED_MACHINES:
                raise BadInput(f"an invitation is for 1 to {MAX_INVITED_MACHINES} machines")
            token = self.run.admission.invite(name, cast(Role, role), seconds, machines)
            line = f"{self.run.status().join_line} --ticket {token}"
            return control_pb2.InviteResponse(token=token, join_line=line)
        return control_pb2.InviteResponse()

    def Evict(self, request: Any, context: grpc.ServicerContext) -> control_pb2.Peer:
        with _explained(context):
            peer = self._find_peer(request.peer)
            self.run.admission.evict(
                peer, request.reason.strip()[:MAX_REASON_CHARACTERS] or "no reason given"
            )
            return to_message(peer, control_pb2.Peer())
        return control_pb2.Peer()

    def _find_peer(self, wanted: str) -> PeerStatus:
        found = [peer for peer in self.run.status().peers if wanted in (peer.name, peer.peer_id)]
        if not found:
            raise NotFound(f"no peer {wanted!r} is known: `coordinator peers` lists them")
        if len(found) > 1:
            raise BadInput(f"{len(found)} peers are named {wanted!r}: give the peer id")
        return found[0]

    def _changes(self, context: grpc.ServicerContext, period: float) -> Iterator[control_pb2.Run]:
        last, sent_at = None, 0.0
        while context.is_active() and not self.stopping.is_set():
            status = self.run.status()
            essence = status.model_copy(update={"generated_at": 0.0})
            if essence != last or time.monotonic() - sent_at > LONGEST_SILENCE_SECONDS:
                yield to_message(status, control_pb2.Run())
                last, sent_at = essence, time.monotonic()
            self.stopping.wait(period)

    def _wait_for(self, wish: Future[Checkpoint], context: grpc.ServicerContext) -> Checkpoint:
        while context.is_active() and not self.stopping.is_set():
            try:
                return wish.result(timeout=1.0)
            except FutureTimeoutError:
                continue
        raise NotNow("the coordinator is ending")


class TokenCheck(grpc.ServerInterceptor):
    """Refuses every method that is neither in `READING` nor of health checking, unless the caller shows the token.

    Anybody can hold the threads that serve strangers, for instance by calls whose message never comes. So whoever shows
    the token is served by others.

    :param pool: threads for calls of our service with the token
    """

    def __init__(self, token: str, pool: ThreadPoolExecutor):
        self._expected, self._pool = f"Bearer {token}".encode(), pool

    def intercept_service(
        self, continuation: Callable[[Any], Any], handler_call_details: grpc.HandlerCallDetails
    ) -> Any:
        service, _slash, method = handler_call_details.method.lstrip("/").partition("/")
        shown = self._is_shown(handler_call_details)
        if not shown and service != health.SERVICE_NAME and not (service == SERVICE and method in READING):
            # as if many messages came, because that does not wait for the first one
            return grpc.stream_unary_rpc_method_handler(_refuse)
        handler = continuation(handler_call_details)
        if not shown or service != SERVICE or handler is None:
            return handler
        _has_token.set(True)
        return _served_by(self._pool, handler)

    def _is_shown(self, details: grpc.HandlerCallDetails) -> bool:
        metadata = dict(details.invocation_metadata or ())
        shown = metadata.get("authorization", "")
        return hmac.compare_digest(shown.encode() if isinstance(shown, str) else shown, self._expected)


def _served_by(pool: ThreadPoolExecutor, handler: Any) -> Any:
    """The handler of one of our methods, which all take one message, with threads of its own."""
    if handler.response_streaming:
        call, make = functools.partial(handler.unary_stream), grpc.unary_stream_rpc_method_handler
    else:
        call, make = functools.partial(handler.unary_unary), grpc.unary_unary_rpc_method_handler
    # grpc has no other place for it; its own health checking uses this one
    call.experimental_thread_pool = pool  # type: ignore[attr-defined]
    return make(call, handler.request_deserializer, handler.response_serializer)


def _refuse(_requests: Any, context: grpc.ServicerContext) -> None:
    context.abort(
        grpc.StatusCode.UNAUTHENTICATED,
        "this needs the token in control.token of the coordinator's run directory, as `authorization: Bearer TOKEN`",
    )


def _changed(context: grpc.ServicerContext, make: Callable[[], SettingsChange]) -> control_pb2.SettingsChange:
    with _explained(context):
        return change_message(make())
    return control_pb2.SettingsChange()


@contextmanager
def _explained(context: grpc.ServicerContext) -> Iterator[None]:
    """Turn our errors into status codes."""
    try:
        yield
    except NotFound as error:
        context.abort(grpc.StatusCode.NOT_FOUND, str(error))
    except BadInput as error:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
    except NotNow as error:
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
    except ArtelError as error:
        context.abort(grpc.StatusCode.ABORTED, str(error))
