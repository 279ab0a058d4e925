"""JSON about the run itself, its live stream, and the history as files; described by `/api/openapi.json`.

All routes are read-only. The series behind the charts are in `history_api`.
"""

import time
from itertools import chain
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from coordinator.downsampling import DAY
from coordinator.history_export import Every, Table, csv_lines
from coordinator.replay import status_at
from coordinator.sources import From, Seconds, When
from coordinator.status import PEER_STATES, RunStatus

router = APIRouter(prefix="/api")
live_router = APIRouter(prefix="/api")


class RunFacts(BaseModel):
    """What the page asks first: what is being shown, and from when to when there is history."""

    run_id: str
    replay: bool
    now: float
    first: float | None
    newest: float | None
    states: list[str]


class Contributors(BaseModel):
    """Samples of everybody, and the peers who gave most of them."""

    samples: int
    peers: list[dict[str, Any]]


@router.get("/status")
def status(source: From) -> RunStatus:
    """The run now: the same JSON as `coordinator status --json`."""
    return source.current_status()


@router.get("/run")
def run(source: From) -> RunFacts:
    """What is shown, and the span of its history."""
    first, newest = source.history.span() or (None, None)
    return RunFacts(
        run_id=source.current_status().run_id,
        replay=source.broadcaster is None,
        now=time.time(),
        first=first,
        newest=newest,
        states=list(PEER_STATES),
    )


@router.get("/at")
def at(source: From, t: Seconds) -> RunStatus:
    """The run as it was at Unix second `t`, put together from the history."""
    return status_at(source.history.path, t, source.current_status())


@router.get("/contributors")
def contributors(
    source: From,
    period: Literal["day", "run"] = "run",
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Contributors:
    """Peers by samples contributed, most first, over the run or the newest day (UTC)."""
    known = source.history.span()
    since = known[1] - known[1] % DAY if known and period == "day" else None
    samples, peers = source.history.contributors(since, limit)
    return Contributors(samples=samples, peers=peers)


@router.get("/export/{table}.csv", response_class=StreamingResponse)
def export(source: From, table: Table, when: When, every: Every = "minute") -> StreamingResponse:
    """A table of the history as CSV; `every` is the resolution of counts."""
    lines = csv_lines(source.history.path, table, *when.resolve(source.history), every)
    first = next(lines)  # a history that cannot be read is an error, not an empty file
    headers = {"Content-Disposition": f'attachment; filename="{table}.csv"'}
    return StreamingResponse(chain([first], lines), media_type="text/csv", headers=headers)


@live_router.get("/stream", response_class=StreamingResponse)
async def stream(request: Request) -> StreamingResponse:
    """Server-sent events: one `snapshot` of the status, then a `delta` about every second."""
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "Vary": "Accept-Encoding"}
    packed = "gzip" in request.headers.get("Accept-Encoding", "")
    if packed:
        headers["Content-Encoding"] = "gzip"
    events = request.app.state.broadcaster.subscribe(packed)
    return StreamingResponse(events, media_type="text/event-stream", headers=headers)
