"""JSON behind every figure of the page, described by `/api/openapi.json`.

All routes are read-only. Stretches of time are given as `start` and `end` (Unix seconds), or as `last`
seconds up to the newest moment recorded; without any of them the whole run is meant.
"""

import time
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from coordinator.downsampling import DAY
from coordinator.event_stream import Broadcaster
from coordinator.history_reader import HistoryReader
from coordinator.status import PEER_STATES, RunStatus

Points = Annotated[int, Query(ge=10, le=5000, description="about as many points as the chart is wide")]
Limit = Annotated[int, Query(ge=1, le=1000)]


class RunFacts(BaseModel):
    """What the page asks first: what is being shown, and from when to when there is history."""

    run_id: str
    replay: bool
    now: float
    first: float | None
    newest: float | None
    states: list[str]


class Span(BaseModel):
    """A stretch of time, resolved."""

    start: float
    end: float | None


def create_api(
    history: HistoryReader,
    current_status: Callable[[], RunStatus],
    broadcaster: Broadcaster | None,
) -> APIRouter:
    """Routes under /api; without a broadcaster (a replay) there is no stream."""
    router = APIRouter(prefix="/api")

    def span(start: float | None = None, end: float | None = None, last: float | None = None) -> Span:
        if start is None and last is not None:
            known = history.span()
            newest = known[1] if known else time.time()
            start = (end if end is not None else newest) - last
        if start is None:
            known = history.span()
            start = known[0] if known else 0.0
        return Span(start=start, end=end)

    Stretch = Annotated[Span, Depends(span)]

    @router.get("/status")
    def status() -> RunStatus:
        """The run now: the same JSON as `coordinator status --json`."""
        return current_status()

    @router.get("/run")
    def run() -> RunFacts:
        """What is shown, and the span of its history."""
        first, newest = history.span() or (None, None)
        return RunFacts(
            run_id=current_status().run_id,
            replay=broadcaster is None,
            now=time.time(),
            first=first,
            newest=newest,
            states=list(PEER_STATES),
        )

    @router.get("/counts")
    def counts(span: Stretch, points: Points = 600) -> dict[str, Any]:
        """Number of peers by state over time, as columns; null where nothing was recorded."""
        return history.counts(span.start, span.end, points)

    @router.get("/steps")
    def steps(span: Stretch, points: Points = 600) -> dict[str, Any]:
        """Global steps over time, as columns: loss, group size, fraction received, seconds, bytes."""
        return history.steps(span.start, span.end, points)

    @router.get("/rounds")
    def rounds(span: Stretch, limit: Limit = 50) -> list[dict]:
        """Global steps whose averaging was partial or failed first, newest first, with reasons."""
        return history.round_problems(span.start, span.end, limit)

    @router.get("/checkpoints")
    def checkpoints() -> list[dict]:
        """All checkpoints recorded, oldest first."""
        return history.checkpoints()

    @router.get("/events")
    def events(
        span: Stretch,
        limit: Limit = 100,
        kind: Annotated[list[str] | None, Query()] = None,
        before_id: int | None = None,
    ) -> list[dict]:
        """Events in sentences, newest first; repeat `kind` to keep only some."""
        return history.events(span.start, span.end, limit, kind or (), before_id)

    @router.get("/marks")
    def marks(span: Stretch, points: Points = 300) -> list[dict]:
        """Number of events of each kind per bucket of time."""
        return history.event_marks(span.start, span.end, points)

    @router.get("/timeline")
    def timeline(
        span: Stretch,
        offset: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=1000)] = 60,
        points: Points = 800,
        find: str = "",
    ) -> dict[str, Any]:
        """Peers as rows, each with flat [start, seconds, index of state, …] stays."""
        return history.timeline(span.start, span.end, offset, limit, points, find)

    @router.get("/contributors")
    def contributors(period: Literal["day", "run"] = "run", limit: Limit = 100) -> list[dict]:
        """Peers by samples contributed, most first, over the run or the newest day (UTC)."""
        known = history.span()
        since = known[1] - known[1] % DAY if known and period == "day" else None
        return history.contributors(since, limit)

    if broadcaster is not None:

        @router.get("/stream", response_class=StreamingResponse)
        async def stream() -> StreamingResponse:
            """Server-sent events: one `snapshot` of the status, then a `delta` about every second."""
            headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            return StreamingResponse(broadcaster.subscribe(), media_type="text/event-stream", headers=headers)

    return router
