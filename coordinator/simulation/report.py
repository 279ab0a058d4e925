"""What a simulation found: figures for an operator, as one object and as lines to read."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from coordinator.simulation.ledger import Ledger, OnlineTimeline, StepRecord
from coordinator.simulation.simulated_peer import Doing, SimulatedPeer


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True)


class StepTimes(_Part):
    """Seconds between global steps; None when there were none."""

    median: float | None
    p95: float | None
    worst: float | None


class TimeShares(_Part):
    """How the peers' online time divides; the four sum to 1, and `computing` is the utilisation."""

    computing: float
    averaging: float
    waiting: float
    syncing: float


class SampleBooks(_Part):
    """Where every computed sample went: computed = in_steps + the lost ones + pending."""

    computed: int
    in_steps: int
    lost: dict[str, int]
    pending: int


class RoundCounts(_Part):
    """Averaging rounds as their members count them: a round of three peers counts three times."""

    total: int
    partial: int
    failed: int


class PeersOnline(_Part):
    """Peers online, those that are still starting or fetching the state included."""

    mean: float
    lowest: int
    highest: int


class Recovery(_Part):
    """Seconds: from a kill to the next global step, and from a peer's start to its first one."""

    after_kill_median: float | None
    after_kill_worst: float | None
    joining_median: float | None
    joining_p95: float | None
    visits: int
    visits_without_step: int


class TimelineSlice(_Part):
    """One slice of the simulated time; `samples_per_second` are those that went into steps."""

    hour: float
    peers_online: float
    samples_per_second: float
    step_seconds: float | None


class SimulationReport(_Part):
    """A simulated run; `utilisation` = time computing / time online, `goodput` = samples in steps / computed.

    :param steps_apart: steps that members made each alone because no round came about: their models drift apart
    """

    hours: float
    target_batch_size: int
    global_steps: int
    steps_per_hour: float
    samples_per_second: float
    samples_per_step: float
    step_seconds: StepTimes
    goodput: float
    utilisation: float
    time: TimeShares
    samples: SampleBooks
    rounds: RoundCounts
    steps_apart: int
    peers_online: PeersOnline
    recovery: Recovery
    timeline: tuple[TimelineSlice, ...]


def make_report(
    ledger: Ledger,
    peers: Sequence[SimulatedPeer],
    online: OnlineTimeline,
    seconds: float,
    target_batch_size: int,
) -> SimulationReport:
    """Put the books of a finished simulation together."""
    intervals = [step.seconds for step in ledger.steps[1:]]  # the first one contains everybody's start
    shares = _shares(peers)
    return SimulationReport(
        hours=seconds / 3600,
        target_batch_size=target_batch_size,
        global_steps=len(ledger.steps),
        steps_per_hour=len(ledger.steps) / seconds * 3600,
        samples_per_second=ledger.in_steps / seconds,
        samples_per_step=ledger.in_steps / max(1, len(ledger.steps)),
        step_seconds=StepTimes(
            median=quantile(intervals, 0.5), p95=quantile(intervals, 0.95), worst=quantile(intervals, 1.0)
        ),
        goodput=ledger.in_steps / ledger.computed if ledger.computed else 1.0,
        utilisation=shares.computing,
        time=shares,
        samples=SampleBooks(
            computed=ledger.computed,
            in_steps=ledger.in_steps,
            lost={reason.value: count for reason, count in sorted(ledger.lost.items()) if count},
            pending=ledger.pending,
        ),
        rounds=RoundCounts(total=ledger.rounds, partial=ledger.rounds_partial, failed=ledger.rounds_failed),
        steps_apart=ledger.steps_apart,
        peers_online=PeersOnline(
            mean=sum(online.peer_seconds) / seconds, lowest=online.lowest, highest=online.highest
        ),
        recovery=_recovery(ledger),
        timeline=_timeline(ledger.steps, online),
    )


def describe_report(report: SimulationReport) -> str:
    """The report as lines for a terminal."""
    time, samples, rounds, recovery = report.time, report.samples, report.rounds, report.recovery
    lost = ", ".join(f"{count} {reason}" for reason, count in samples.lost.items()) or "none"
    lines = [
        f"peers online      {report.peers_online.mean:.1f} on average, "
        f"{report.peers_online.lowest} to {report.peers_online.highest}",
        f"global steps      {report.global_steps} in {report.hours:g} h, {report.steps_per_hour:.1f} an hour, "
        f"{report.samples_per_step:.0f} samples each (target {report.target_batch_size})",
        f"step time         median {_seconds(report.step_seconds.median)}, "
        f"95 % within {_seconds(report.step_seconds.p95)}, worst {_seconds(report.step_seconds.worst)}",
        f"samples/s         {report.samples_per_second:.1f} in global steps",
        f"goodput           {report.goodput:.2%}; lost: {lost}; pending {samples.pending}",
        f"utilisation       {report.utilisation:.1%} computing, {time.averaging:.1%} averaging, "
        f"{time.waiting:.1%} waiting, {time.syncing:.1%} joining and syncing",
        f"averaging rounds  {rounds.total} as members count them, {rounds.partial} partial, "
        f"{rounds.failed} failed",
        f"after a kill      next step in {_seconds(recovery.after_kill_median)} (median), "
        f"{_seconds(recovery.after_kill_worst)} (worst)",
        f"joining           first step after {_seconds(recovery.joining_median)} (median), "
        f"{_seconds(recovery.joining_p95)} (95 %); {recovery.visits_without_step} of {recovery.visits} "
        "stays without a step",
    ]
    if report.steps_apart:
        lines.append(
            f"warning           {report.steps_apart} steps were made by each peer alone because no round ended "
            "within allreduce_timeout: raise it, or the peers' models drift apart"
        )
    return "\n".join(lines)


def quantile(values: Sequence[float], share: float) -> float | None:
    """The value below which this share of all lies; None for no values."""
    if not values:
        return None
    if share == 0.5:
        return statistics.median(values)
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def _shares(peers: Sequence[SimulatedPeer]) -> TimeShares:
    totals = [sum(peer.seconds[doing] for peer in peers) for doing in Doing]
    online = sum(totals[:4]) or 1.0
    return TimeShares(
        computing=totals[Doing.COMPUTING] / online,
        averaging=totals[Doing.AVERAGING] / online,
        waiting=totals[Doing.WAITING] / online,
        syncing=totals[Doing.SYNCING] / online,
    )


def _recovery(ledger: Ledger) -> Recovery:
    return Recovery(
        after_kill_median=quantile(ledger.recoveries, 0.5),
        after_kill_worst=quantile(ledger.recoveries, 1.0),
        joining_median=quantile(ledger.rejoins, 0.5),
        joining_p95=quantile(ledger.rejoins, 0.95),
        visits=ledger.visits,
        visits_without_step=ledger.visits_without_step,
    )


def _timeline(steps: Sequence[StepRecord], online: OnlineTimeline) -> tuple[TimelineSlice, ...]:
    slices: list[list[StepRecord]] = [[] for _ in online.peer_seconds]
    for step in steps:
        slices[min(int(step.t / online.width), len(slices) - 1)].append(step)
    return tuple(
        TimelineSlice(
            hour=(index + 0.5) * online.width / 3600,
            peers_online=mean,
            samples_per_second=sum(step.samples for step in inside) / online.width,
            step_seconds=quantile([step.seconds for step in inside], 0.5),
        )
        for index, (mean, inside) in enumerate(zip(online.mean_online, slices, strict=True))
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} s"
