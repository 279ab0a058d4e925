"""The file of measured times that a simulation is calibrated with.

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

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from coordinator.simulation.json_files import read_json

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
    return read_json(
        Calibration, path, what="calibration", maker=f"python -m benchmarks.round_times --output {path}"
    )
