"""The file of measured times that a simulation is calibrated with, and reading such times off real peers' lines.

    {"machine": "2 cores, shared with other work", "command": "python -m benchmarks.round_times …",
     "cores": 2, "shared_machine": true,
     "rounds":     [{"kind": "gradients", "group_size": 3, "bytes": 1013000,
                     "seconds_matchmaking": 0.08, "seconds_allreduce": 0.11}],
     "joins":      [7.9, 8.3],
     "downloads":  [{"bytes": 11851032, "seconds": 0.4}],
     "updates":    [{"values": 987586, "seconds": 0.012}],
     "leases":     [0.02, 0.03],
     "recoveries": [{"kind": "absent", "group_size": 3, "seconds": 2.9,
                     "matchmaking_time": 2.5, "request_timeout": 1.0, "next_chunk_timeout": 5.0}]}

All durations in seconds. A file that does not fit is `BadInput`; lists may be empty, `rounds` may not.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coordinator.simulation.storm_report import StepSeconds
from swarm.errors import BadInput

Duration = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Bytes = Annotated[float, Field(ge=0, allow_inf_nan=False)]

DEFAULT_FILE = Path(__file__).with_name("default_timings.json")


class _Measured(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MeasuredRound(_Measured):
    """One complete averaging round whose members all arrived together, as its slowest member saw it.

    :param bytes: of one peer's tensors once, after compression
    """

    kind: Literal["gradients", "state"]
    group_size: Annotated[int, Field(ge=2)]
    bytes: Bytes
    seconds_matchmaking: Duration
    seconds_allreduce: Duration


class MeasuredDownload(_Measured):
    """A newcomer's download of a whole state from an idle donor."""

    bytes: Bytes
    seconds: Duration


class MeasuredUpdate(_Measured):
    """One update of the optimizer over so many values."""

    values: Annotated[int, Field(gt=0)]
    seconds: Duration


class MeasuredRecovery(_Measured):
    """A round with somebody missing, and the timeouts it ran under.

    :param kind: `absent`: a member that others believe in never came; `alone`: nobody else came;
        `killed`: a member died while values were exchanged
    :param group_size: how many were expected
    :param seconds: from the round's begin to its end or failure, of the slowest survivor
    """

    kind: Literal["absent", "alone", "killed"]
    group_size: Annotated[int, Field(ge=2)]
    seconds: Duration
    matchmaking_time: Duration
    request_timeout: Duration
    next_chunk_timeout: Duration


class Calibration(_Measured):
    """Everything measured on one machine.

    :param shared_machine: whether all peers of a round shared the `cores`; then what more peers cost is divided by
        what they took from each other before it is applied to peers with machines of their own
    """

    machine: str = ""
    command: str = ""
    cores: Annotated[int, Field(ge=1)] = 1
    shared_machine: bool = False
    rounds: tuple[MeasuredRound, ...] = Field(min_length=1)
    joins: tuple[Duration, ...] = ()
    downloads: tuple[MeasuredDownload, ...] = ()
    updates: tuple[MeasuredUpdate, ...] = ()
    leases: tuple[Duration, ...] = ()
    recoveries: tuple[MeasuredRecovery, ...] = ()


def load_calibration(path: Path | None = None) -> Calibration:
    """Read a calibration file, by default the one measured for this version; raises `BadInput`."""
    path = path or DEFAULT_FILE
    try:
        return Calibration.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise BadInput(
            f"calibration {path} does not exist: `python -m benchmarks.round_times --output {path}` makes one"
        ) from None
    except OSError as error:
        raise BadInput(f"calibration {path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        details = "; ".join(
            f"`{'.'.join(map(str, detail['loc'])) or 'file'}`: {detail['msg']}"
            for detail in error.errors()[:3]
        )
        raise BadInput(f"calibration {path}: {details}") from None


def from_step_lines(lines: Iterable[str], *, wire_bytes: float) -> list[MeasuredRound]:
    """Rounds out of the `step` lines that peers print with `--json`; other lines are passed over.

    Lines of the same global step are one round. A peer that came early waits in matchmaking for the others, so the
    shortest matchmaking is the one that measures the handshake; the exchange ends for all together, so its longest
    time is the round's.

    :param wire_bytes: of everything one peer sends once per step, see `sizes.transfer_sizes`
    """
    by_step: dict[int, list[tuple[int, StepSeconds]]] = {}
    for line in lines:
        if (parsed := _step_of(line)) is not None:
            step, group, seconds = parsed
            by_step.setdefault(step, []).append((group, seconds))
    return [
        MeasuredRound(
            kind="gradients",
            group_size=max(group for group, _seconds in members),
            bytes=wire_bytes,
            seconds_matchmaking=min(seconds.matchmaking for _group, seconds in members),
            seconds_allreduce=max(seconds.allreduce for _group, seconds in members),
        )
        for members in by_step.values()
        if max(group for group, _seconds in members) >= 2
    ]


def _step_of(line: str) -> tuple[int, int, StepSeconds] | None:
    try:
        event = json.loads(line)
        if event["event"] != "step":
            return None
        return int(event["global_step"]), int(event["group"]), StepSeconds.model_validate(event["seconds"])
    except (ValueError, KeyError, TypeError):
        return None
