"""Which resolution answers a question about a stretch of time, and where nothing was recorded.

Counts are kept in three tiers (a second, a minute, an hour). A query takes the coarsest bucket that still
fills the chart and the finest tier whose retention reaches back far enough; both are plain functions of
numbers.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

TIERS = (1, 60, 3600)
BUCKETS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)

# A tracker may report only every few seconds; a shorter silence is no gap.
SILENCE = 15.0

DAY = 86400.0
LONGEST_CLUSTER = 4


@dataclass(frozen=True)
class Retention:
    """How long each resolution is kept, in seconds; the coarsest (hours) is kept for ever.

    `exact_intervals`: after it, a peer's stays shorter than `interval_resolution` merge into their neighbour:
    training and averaging alternate at every global step, and 60 days of that would fill the disk.
    """

    seconds: float = 2 * 3600.0
    minutes: float = 7 * DAY
    exact_intervals: float = 2 * 3600.0
    interval_resolution: float = 60.0
    events: float = 90 * DAY

    def reach(self, tier: int) -> float:
        """How far back `tier` reaches, in seconds."""
        return {1: self.seconds, 60: self.minutes}.get(tier, float("inf"))


def choose_bucket(span: float, max_points: int) -> int:
    """Smallest bucket (seconds) that shows `span` seconds in at most `max_points` points."""
    for bucket in BUCKETS:
        if span / bucket <= max_points:
            return bucket
    return int(span / max_points / DAY + 1) * int(DAY)


def choose_tier(bucket: int, start: float, now: float, retention: Retention) -> tuple[int, int]:
    """Tier to read and bucket to show, the bucket widened where only coarser tiers reach back to `start`."""
    for tier in TIERS:
        coarser_fits = any(tier < other <= bucket for other in TIERS)
        if not coarser_fits and now - start <= retention.reach(tier):
            return tier, max(bucket, tier)
    return TIERS[-1], max(bucket, TIERS[-1])


def with_gaps(rows: Iterable[Sequence], bucket: int, width: int) -> list[Sequence]:
    """Insert a row of None, `width` wide, after each row followed by silence. Rows begin with time."""
    silence = max(2.0 * bucket, SILENCE)
    result: list[Sequence] = []
    for row in rows:
        if result and row[0] - result[-1][0] > silence:
            result.append((result[-1][0] + bucket, *(None,) * (width - 1)))
        result.append(row)
    return result


class Interval(NamedTuple):
    """A stay in one state, from `started` to `ended` (Unix seconds); a tuple, for there are many."""

    started: float
    ended: float
    state: int


def coalesce(intervals: Iterable[Interval], resolution: float) -> list[Interval]:
    """Stays no shorter than about `resolution`: a cluster of shorter ones becomes its most frequent state.

    Order and extent are kept; a silence longer than `resolution` stays a silence.

    >>> stays = [Interval(0, 90, 2), Interval(90, 93, 3), Interval(93, 200, 2)]
    >>> coalesce(stays, resolution=60)
    [Interval(started=0, ended=200, state=2)]
    """
    result: list[Interval] = []
    cluster: list[Interval] = []
    longest = LONGEST_CLUSTER * resolution  # alternating states for hours must not end as one
    for stay in intervals:
        short = stay.ended - stay.started < resolution
        if cluster and (
            not short
            or stay.started - cluster[-1].ended > resolution
            or stay.ended - cluster[0].started > longest
        ):
            _append(result, _dominant(cluster), resolution)
            cluster = []
        if short:
            cluster.append(stay)
        else:
            _append(result, stay, resolution)
    if cluster:
        _append(result, _dominant(cluster), resolution)
    return result


def _length(stay: Interval) -> float:
    return stay.ended - stay.started


def _dominant(cluster: Sequence[Interval]) -> Interval:
    if len(cluster) == 1:
        return cluster[0]
    seconds: dict[int, float] = {}
    for stay in cluster:
        seconds[stay.state] = seconds.get(stay.state, 0.0) + _length(stay)
    return Interval(cluster[0].started, cluster[-1].ended, max(seconds, key=seconds.__getitem__))


def _append(result: list[Interval], stay: Interval, resolution: float) -> None:
    """Add `stay`; joined with the one before where they touch and are alike, or one is too short to show."""
    last = result[-1] if result else None
    if last is None or stay.started - last.ended > resolution:
        result.append(stay)
    elif stay.state == last.state or min(_length(stay), _length(last)) < resolution:
        longer = max(last, stay, key=_length)
        result[-1] = Interval(last.started, stay.ended, longer.state)
    else:
        result.append(stay)
