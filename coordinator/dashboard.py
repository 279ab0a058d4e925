"""The dashboard: one read-only page, its JSON and its event stream, from the coordinator itself.

The page and everything it loads come from `coordinator/static`; a content security policy forbids any
other host. `DashboardServer` runs it in a thread beside the tracker, installs no signal handlers and
stops at once, also while pages are open. A port that cannot be had is `DashboardError`, one line.
"""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.middleware.gzip import GZipMiddleware

from coordinator.api import live_router, router
from coordinator.event_stream import Broadcaster
from coordinator.history_api import router as history_router
from coordinator.history_reader import HistoryReader
from coordinator.history_schema import HistoryError
from coordinator.host_port import bind
from coordinator.prometheus import CONTENT_TYPE, render
from coordinator.sources import Sources
from coordinator.status import RunStatus
from swarm.errors import OperationFailed

STATIC = Path(__file__).parent / "static"
POLICY = (
    "default-src 'self'; img-src 'self' data:; frame-ancestors 'self'; base-uri 'none'; form-action 'none'"
)


class DashboardError(OperationFailed):
    """The dashboard cannot be served; the message is one line for the user."""


def bind_dashboard(host: str, port: int) -> socket.socket:
    """A socket that listens for browsers; raises `DashboardError`."""
    try:
        return bind(host, port)
    except OSError as error:
        raise DashboardError(
            f"dashboard address {host}:{port} cannot be used ({error.strerror or error}): "
            "give another with --dashboard HOST:PORT, port 0 picks a free one"
        ) from None


def create_app(history: HistoryReader, current_status: Callable[[], RunStatus]) -> FastAPI:
    """The dashboard of a live run; `current_status` is called often and from other threads: it must not compute."""
    broadcaster = Broadcaster(current_status)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        ticking = asyncio.create_task(broadcaster.run())
        yield
        ticking.cancel()

    app = _page(Sources(history, current_status, broadcaster), lifespan)
    app.include_router(live_router)
    app.state.broadcaster = broadcaster
    return app


def create_replay_app(history: HistoryReader) -> FastAPI:
    """The same page over a finished run: nothing is live, the status is the last one kept."""

    def last_status() -> RunStatus:
        return history.last_status() or RunStatus(run_id="", state="finished")

    return _page(Sources(history, last_status), None)


def _page(sources: Sources, lifespan: Callable | None) -> FastAPI:
    # FastAPI's own documentation pages load scripts from another host: the description alone is served.
    app = FastAPI(
        title="Artel coordinator",
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.sources = sources
    app.include_router(router)
    app.include_router(history_router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")

    @app.get("/", include_in_schema=False)
    def index() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    @app.get("/metrics", include_in_schema=False)
    def metrics() -> Response:
        return Response(render(sources.history, sources.current_status), media_type=CONTENT_TYPE)

    @app.exception_handler(HistoryError)
    def history_failed(request: Request, error: HistoryError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, status_code=503)

    @app.middleware("http")
    async def guard(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await proceed(request)
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        # An upgraded coordinator must not be shown by yesterday's script.
        response.headers.setdefault("Cache-Control", "no-cache")
        return response

    app.add_middleware(GZipMiddleware, minimum_size=2000, compresslevel=5)
    return app


class _Server(uvicorn.Server):
    """uvicorn that tells when it has started and ends event streams before it waits for connections."""

    def __init__(self, config: uvicorn.Config, broadcaster: Broadcaster | None) -> None:
        super().__init__(config)
        self.settled = threading.Event()
        self._broadcaster = broadcaster

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets=sockets)
        finally:
            self.settled.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._broadcaster is not None:
            self._broadcaster.close()
        await super().shutdown(sockets=sockets)


class DashboardServer:
    """Serves an app in a thread.

    >>> server = DashboardServer(create_app(history, tracker.status), "127.0.0.1", 8080)  # doctest: +SKIP
    >>> server.start(); print(server.address)                                             # doctest: +SKIP
    http://127.0.0.1:8080
    """

    def __init__(self, app: FastAPI, host: str, port: int) -> None:
        self._host, self._port = host, port
        # its warnings are about what strangers send to an open port
        config = uvicorn.Config(
            app, log_level="error", access_log=False, timeout_graceful_shutdown=1, loop="asyncio", ws="none"
        )
        self._server = _Server(config, getattr(app.state, "broadcaster", None))
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where a browser on this machine finds the page; with port 0 known after `start`."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"http://[{host}]:{self._port}" if ":" in host else f"http://{host}:{self._port}"

    def start(self) -> None:
        """Bind, then serve in a thread; returns when pages can be opened. Raises `DashboardError`."""
        bound = bind_dashboard(self._host, self._port)
        self._port = bound.getsockname()[1]
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [bound]}, name="dashboard", daemon=True
        )
        self._thread.start()
        self._server.settled.wait()
        if not self._server.started:
            bound.close()
            raise DashboardError(f"the dashboard on {self._host}:{self._port} failed to start, see the log")

    def stop(self) -> None:
        """End all streams and the thread; returns when the port is free again."""
        if self._thread is not None:
            self._server.should_exit = True
            self._thread.join(timeout=5.0)
            self._thread = None
