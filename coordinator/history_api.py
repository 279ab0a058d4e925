"""The series behind the charts and lists of the page: JSON of the history, for any stretch of time.

Stretches are given as `start` and `end` (Unix seconds), or as the `last` seconds; without any of them the
whole run is meant. Answers may be two seconds old: every open page asks the same questions.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from coordinator.sources import Count, From, When

router = APIRouter(prefix="/api")

Points = Annotated[int, Query(ge=10, le=5000, description="about as many points as the chart is wide")]
Limit = Annotated[int, Query(ge=1, le=1000)]


@router.get("/counts")
def counts(request: Request, source: From, when: When, points: Points = 600) -> Response:
    """Number of peers by state over time, as columns; null where nothing was recorded."""
    history = source.history
    return source.kept(request, lambda: history.counts(*when.resolve(history), points))


@router.get("/steps")
def steps(request: Request, source: From, when: When, points: Points = 600) -> Response:
    """Global steps over time, as columns: loss, group size, fraction received, seconds, bytes."""
    history = source.history
    return source.kept(request, lambda: history.steps(*when.resolve(history), points))


@router.get("/rounds")
def rounds(request: Request, source: From, when: When, limit: Limit = 50) -> Response:
    """Global steps whose averaging was partial or failed first, newest first, with reasons."""
    history = source.history
    return source.kept(request, lambda: history.round_problems(*when.resolve(history), limit))


@router.get("/checkpoints")
def checkpoints(request: Request, source: From) -> Response:
    """All checkpoints recorded, oldest first."""
    return source.kept(request, source.history.checkpoints)


@router.get("/events")
def events(
    request: Request,
    source: From,
    when: When,
    limit: Limit = 100,
    about: Literal["peers", "run"] | None = None,
    before_id: Count | None = None,
) -> Response:
    """Events in sentences, newest first; `before_id` continues a listing."""
    history = source.history
    return source.kept(request, lambda: history.events(*when.resolve(history), limit, about, before_id))


@router.get("/marks")
def marks(request: Request, source: From, when: When, points: Points = 300) -> Response:
    """Number of events of each kind per bucket of time."""
    history = source.history
    return source.kept(request, lambda: history.event_marks(*when.resolve(history), points))


@router.get("/timeline")
def timeline(
    request: Request,
    source: From,
    when: When,
    offset: Count = 0,
    limit: Limit = 60,
    points: Points = 800,
    find: str = "",
) -> Response:
    """Peers as rows, each with flat [seconds after start, seconds, index of state, …] stays."""
    history = source.history
    return source.kept(request, lambda: history.timeline(*when.resolve(history), offset, limit, points, find))
