"""What the dashboard's routes answer from: one object, kept in `app.state`, and the ways routes ask for it."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response

from coordinator.answers import Answers
from coordinator.event_stream import Broadcaster
from coordinator.history_reader import HistoryReader
from coordinator.status import RunStatus

KEPT_SECONDS = 1.0

# up to the year 5138; what is beyond, or not a number, is refused rather than computed with
_LATEST = 1e11
Seconds = Annotated[float, Query(ge=0, le=_LATEST, allow_inf_nan=False)]
# what SQLite counts with
Count = Annotated[int, Query(ge=0, lt=2**63)]


@dataclass(frozen=True)
class Sources:
    """The history, the status now, and the stream of a live run (None in a replay)."""

    history: HistoryReader
    current_status: Callable[[], RunStatus]
    broadcaster: Broadcaster | None = None
    answers: Answers = field(default_factory=lambda: Answers(KEPT_SECONDS))

    def kept(self, request: Request, compute: Callable[[], Any]) -> Response:
        """JSON of `compute()`, or of the same question a moment ago."""
        return Response(self.answers.get(str(request.url), compute), media_type="application/json")


@dataclass(frozen=True)
class Stretch:
    """A stretch of time as asked for: `start` and `end`, or the `last` seconds, or the whole run."""

    start: float | None
    end: float | None
    last: float | None

    def resolve(self, history: HistoryReader) -> tuple[float, float | None]:
        """Start and end in Unix seconds; an end of None is the newest moment recorded."""
        if self.start is not None:
            return self.start, self.end
        first, newest = history.span() or (0.0, time.time())
        if self.last is None:
            return first, self.end
        return (newest if self.end is None else self.end) - self.last, self.end


async def _sources(request: Request) -> Sources:
    return request.app.state.sources


async def _stretch(
    start: Annotated[Seconds | None, Query(description="Unix seconds")] = None,
    end: Annotated[Seconds | None, Query(description="Unix seconds; by default the newest moment")] = None,
    last: Annotated[Seconds | None, Query(description="seconds up to the end, instead of start")] = None,
) -> Stretch:
    return Stretch(start, end, last)


From = Annotated[Sources, Depends(_sources)]
When = Annotated[Stretch, Depends(_stretch)]
