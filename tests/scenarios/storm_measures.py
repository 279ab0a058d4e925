"""What a storm cost, from what its processes printed and the coordinator counted."""

from __future__ import annotations

import json
import math
import os
import statistics
from dataclasses import dataclass
from typing import Any

from swarm.spec import RunSpec

# goals at demo settings
SURVIVORS_SECONDS = 15.0
VICTIM_SECONDS = 30.0
POLITE_GOODPUT = 0.95
STEPS_OF_AVAILABLE = 0.85
LOSS_TOLERANCE = 0.01
PARAMETER_TOLERANCE = 1e-3
SLOW_ROUND_SECONDS = 20.0
DEATHS = ("kill", "kill_main")


@dataclass(frozen=True)
class Observation:
    """Everything that was seen of one storm or calm run.

    :param log: what was done, with Unix times
    :param lines: by peer, the JSON lines of all its processes one after another
    :param checkpoints: manifests, oldest first
    :param difference: the state probe's answer
    """

    spec: RunSpec
    began: float
    seconds: float
    grace: float
    log: list[dict[str, Any]]
    lines: dict[str, list[dict[str, Any]]]
    silence: float
    status: dict[str, Any]
    totals: dict[str, int]
    checkpoints: list[dict[str, Any]]
    difference: dict[str, Any]
    leftovers: list[str]

    def steps(self, peer: str) -> list[dict[str, Any]]:
        return [line for line in self.lines[peer] if line["event"] == "step"]

    def times_of(self, *kinds: str) -> list[tuple[float, str]]:
        """(Unix time, peer) of everything of these kinds that was done within the storm."""
        end = self.began + self.seconds
        return [
            (entry["time"], entry["peer"])
            for entry in self.log
            if entry["kind"] in kinds and self.began <= entry["time"] < end
        ]

    @property
    def steps_committed(self) -> int:
        """Global steps made within the storm, by whomever."""
        steps = (step for peer in self.lines for step in self.steps(peer))
        return len({step["global_step"] for step in steps if 0 <= step["time"] - self.began < self.seconds})

    @property
    def steps_lost(self) -> int:
        """Global steps that were made again when somebody was two steps further already.

        What a peer makes while it is out of sight, or cannot know of the others yet, is its own loss.
        """
        made = [step for peer in self.lines for step in self.steps(peer)]
        lost = {
            step["global_step"]
            for step in made
            if not self._out_of_sight(step["time"])
            and any(
                other["global_step"] >= step["global_step"] + 2 and other["time"] < step["time"] - 1
                for other in made
            )
        }
        return len(lost)

    def _out_of_sight(self, t: float) -> bool:
        return any(
            begin <= t <= begin + self.silence + self.spec.leases.expiration + SLOW_ROUND_SECONDS
            for begin, _peer in self.times_of("freeze", "cut", "split")
        )

    @property
    def bad_ends(self) -> list[str]:
        """Peers that were told to go and did not end well, or in time."""
        told = {}
        bad = []
        for entry in self.log:
            if entry["kind"] == "leave":
                told[entry["peer"]] = entry["time"]
            elif entry["kind"] == "left":
                seconds = entry["time"] - told[entry["peer"]]
                if entry["code"] or seconds > self.grace + 1:
                    bad.append(f"{entry['peer']} with code {entry['code']} after {seconds:.1f} s")
        return bad

    @property
    def survivors_recovery(self) -> list[float]:
        """Seconds from every death to the next global step of somebody else."""
        return [self._next_step(t, exclude=peer) - t for t, peer in self.times_of(*DEATHS)]

    @property
    def victims_recovery(self) -> list[float]:
        """Seconds from every new start of a killed peer to its first global step, if it was left in peace so long."""
        disturbed = self.times_of(*DEATHS, "leave", "freeze", "cut", "split", "coordinator_kill")
        end = self.began + self.seconds
        return [
            seconds
            for t, peer in self.times_of("start")
            if any(died < t and who == peer for died, who in self.times_of(*DEATHS))
            and ((seconds := self._next_step(t, only=peer) - t) < math.inf or end - t > VICTIM_SECONDS)
            and not any(t < at < min(end, t + seconds) and who in (peer, None) for at, who in disturbed)
        ]

    @property
    def polite_goodput(self) -> float | None:
        """Of all processes that left when told to, and were not silenced before: samples placed / samples computed."""
        polite = [
            life
            for peer, lines in self.lines.items()
            for life in lives(lines)
            if life[-1]["event"] == "left" and not self._was_silenced(peer, life)
        ]
        handed = sum(line["samples"] for life in polite for line in life if line["event"] == "handed_over")
        taken = sum(line["taken_over"] for life in polite for line in life if line["event"] == "step")
        contributed = sum(life[-1]["samples_contributed"] for life in polite)
        computed = sum(life[-1]["samples_computed"] for life in polite)
        return (contributed + handed - taken) / computed if computed else None

    def _was_silenced(self, peer: str, life: list[dict[str, Any]]) -> bool:
        began, ended = life[0]["time"], life[-1]["time"]
        silences = self.times_of("freeze", "cut", "split")
        return any(who in (peer, None) and began < at < ended for at, who in silences)

    @property
    def available(self) -> float:
        """Share of the peers' time in which they had a state and were alive, 0 to 1."""
        total = sum(self._time_available(peer) for peer in self.lines)
        return total / (len(self.lines) * self.seconds)

    @property
    def rounds(self) -> tuple[int, int]:
        """(global steps of single peers in which not everything was received, all of them)."""
        steps = [step for peer in self.lines for step in self.steps(peer)]
        return sum(step["received"] < 1 for step in steps), len(steps)

    @property
    def goodput(self) -> float:
        return self.totals["contributed"] / max(1, self.totals["computed"])

    @property
    def heldout_by_samples(self) -> list[tuple[int, float]]:
        """(samples in all global steps so far, held-out loss) of every checkpoint."""
        by_step = self._samples_by_step(0.0, math.inf)
        return [
            (sum(count for step, count in by_step.items() if step <= item["step"]), item["heldout_loss"])
            for item in self.checkpoints
        ]

    @property
    def samples_in_steps(self) -> int:
        """Samples in the global steps made within the storm."""
        return sum(self._samples_by_step(self.began, self.began + self.seconds).values())

    def _samples_by_step(self, since: float, until: float) -> dict[int, int]:
        """What went into each global step that was made in this time."""
        by_step: dict[int, int] = {}
        for peer in self.lines:
            for step in self.steps(peer):
                if since <= step["time"] < until:
                    seen = by_step.get(step["global_step"], 0)
                    by_step[step["global_step"]] = max(seen, step["swarm_samples"])
        return by_step

    def report_json(self, command: str) -> str:
        """The storm as `coordinator simulate --compare` reads it."""
        return json.dumps(
            {
                "command": command,
                "spec": self.spec.model_dump(mode="json"),
                "seconds": self.seconds,
                "cores": os.cpu_count(),
                "grace": self.grace,
                "peers": [{"name": peer, "samples_per_second": self._speed(peer)} for peer in self.lines],
                "events": self._events(),
                "steps": [
                    {"t": step["time"] - self.began, "peer": peer, **step}
                    for peer in self.lines
                    for step in self.steps(peer)
                    if self.began <= step["time"] < self.began + self.seconds
                ],
                "steps_committed": self.steps_committed,
                "samples_computed": round(self.samples_in_steps / self.goodput),
                "samples_in_steps": self.samples_in_steps,
                "rounds_partial": sum(peer["partial_rounds"] for peer in self.status["peers"]),
                "rounds_failed": sum(peer["failed_rounds"] for peer in self.status["peers"]),
            },
            indent=1,
        )

    def _events(self) -> list[dict[str, Any]]:
        names = {"kill_main": "kill", "split": None, "gave up": "left"}
        done = [
            {"t": max(0.0, entry["time"] - self.began), "kind": kind, "peer": entry["peer"]}
            for entry in self.log
            if (kind := names.get(entry["kind"], entry["kind"])) is not None
        ]
        synced = [
            {"t": max(0.0, line["time"] - self.began), "kind": "synced", "peer": peer}
            for peer, lines in self.lines.items()
            for line in lines
            if line["event"] == "synced"
        ]
        return sorted([*done, *synced], key=lambda event: event["t"])

    def _next_step(self, after: float, *, only: str | None = None, exclude: str | None = None) -> float:
        times = [
            step["time"]
            for peer in self.lines
            if peer != exclude and only in (None, peer)
            for step in self.steps(peer)
            if step["time"] > after
        ]
        return min(times, default=math.inf)

    def _speed(self, peer: str) -> float:
        speeds = [
            step["samples"] / step["seconds"]["compute"]
            for step in self.steps(peer)
            if step["seconds"]["compute"] > 0 and step["samples"]
        ]
        return statistics.median(speeds) if speeds else 1e-9

    def _time_available(self, peer: str) -> float:
        end = self.began + self.seconds
        ends = sorted(t for t, who in self.times_of(*DEATHS, "leave", "freeze", "cut") if who == peer)
        seconds = 0.0
        starts = [line["time"] for line in self.lines[peer] if line["event"] == "synced"]
        for start in starts:
            until = min([t for t in [*ends, end, *starts] if t > start], default=start)
            seconds += max(0.0, min(until, end) - max(start, self.began))
        return seconds


def lives(lines: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The lines of one peer, divided into its processes."""
    found: list[list[dict[str, Any]]] = []
    for line in lines:
        if line["event"] == "joined":
            found.append([])
        if found:
            found[-1].append(line)
    return found


def describe(seen: Observation) -> tuple[list[str], list[str]]:
    """(lines to print, what must not have happened)."""
    partial, rounds = seen.rounds
    polite = seen.polite_goodput
    survivors, victims = seen.survivors_recovery, seen.victims_recovery
    table = {
        "length": f"{seen.seconds:.0f} s, {len(seen.lines)} peers",
        "disturbances": ", ".join(_count_kinds(seen)) or "none",
        "global steps": f"{seen.steps_committed}",
        "steps lost": f"{seen.steps_lost}",
        "survivors' next step after a kill": _median_and_worst(survivors),
        "killed peer's first step after its new start": _median_and_worst(victims),
        "goodput": f"{seen.goodput:.1%}",
        "goodput of peers that were told to go": "-" if polite is None else f"{polite:.1%}",
        "partial rounds": f"{partial} of {rounds}",
        "largest parameter difference": (
            f"{seen.difference['difference']:.1e} between {seen.difference['peers']} peers at step "
            f"{seen.difference['step']}"
        ),
        "left over": ", ".join(seen.leftovers) or "nothing",
    }
    failures = []
    if seen.steps_lost:
        failures.append(f"{seen.steps_lost} global steps were lost")
    if seen.leftovers:
        failures.append(f"left over: {', '.join(seen.leftovers)}")
    if survivors and max(survivors) > SURVIVORS_SECONDS:
        failures.append(f"survivors needed {max(survivors):.1f} s, more than {SURVIVORS_SECONDS:.0f} s")
    if victims and max(victims) > VICTIM_SECONDS:
        failures.append(f"killed peers needed {max(victims):.1f} s to contribute again")
    if seen.bad_ends:
        failures.append(f"did not leave as told: {', '.join(seen.bad_ends)}")
    if seen.difference["peers"] < 2:
        failures.append("no two peers could be compared")
    if polite is not None and polite < POLITE_GOODPUT:
        failures.append(f"goodput of peers that were told to go is {polite:.1%}")
    if not seen.difference["difference"] < PARAMETER_TOLERANCE:
        failures.append(f"parameters differ by {seen.difference['difference']:.1e}")
    width = max(map(len, table))
    return [f"{name:<{width}}  {value}" for name, value in table.items()], failures


def compare(storm: Observation, calm: Observation) -> tuple[list[str], list[str]]:
    """(lines to print, goals missed) of a storm against a calm run of the same length."""
    scale = storm.seconds / calm.seconds
    available = storm.available / calm.available
    possible = calm.steps_committed * scale * available
    reached = storm.steps_committed / possible
    samples, ours, theirs = losses_at_equal_samples(storm, calm)
    excess = ours / theirs - 1
    lines = [
        f"calm run: {calm.steps_committed} global steps in {calm.seconds:.0f} s, goodput {calm.goodput:.1%}",
        f"storm/calm: {storm.steps_committed / (calm.steps_committed * scale):.1%} of the calm run's steps with "
        f"{available:.1%} of its peers' time: {reached:.1%} of what was possible",
        f"held-out loss after {samples} samples: {ours:.4f} in the storm, {theirs:.4f} in the calm ({excess:+.2%})",
    ]
    failures = []
    if reached < STEPS_OF_AVAILABLE:
        failures.append(f"only {reached:.1%} of the steps that were possible")
    if excess > LOSS_TOLERANCE:
        failures.append(f"the held-out loss is {excess:.2%} above the calm run's")
    return lines, failures


def losses_at_equal_samples(storm: Observation, calm: Observation) -> tuple[int, float, float]:
    """(samples, held-out loss of the storm, of the calm run interpolated between its checkpoints) at the last
    checkpoint of the storm that the calm run has passed as well."""
    curve = calm.heldout_by_samples
    samples, loss = max(point for point in storm.heldout_by_samples if point[0] <= curve[-1][0])
    before = max(point for point in curve if point[0] <= samples)
    after = min(point for point in curve if point[0] >= samples)
    share = (samples - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
    return samples, loss, before[1] + share * (after[1] - before[1])


def _count_kinds(seen: Observation) -> list[str]:
    kinds = [entry["kind"] for entry in seen.log if entry["time"] >= seen.began]
    interesting = [kind for kind in dict.fromkeys(kinds) if kind not in ("start", "resume", "heal", "left")]
    return [f"{kinds.count(kind)} {kind}" for kind in interesting if kind != "coordinator_start"]


def _median_and_worst(seconds: list[float]) -> str:
    if not seconds:
        return "-"
    return f"{statistics.median(seconds):.1f} s median, {max(seconds):.1f} s worst"
