"""The run's numbers for other people's tools: TensorBoard event files.

They take a dictionary once per global step. A log that fails (a full disk) is given up with one warning;
training and tracking never wait for it.
"""

import logging
from pathlib import Path
from typing import Any, Protocol

from coordinator.status import RunStatus, count_by_state
from swarm.errors import OperationFailed

logger = logging.getLogger(__name__)


class MetricLogError(OperationFailed):
    """A log that was asked for cannot be opened; the message is one line for the user."""


class MetricLog(Protocol):
    """Something that keeps scalars by global step."""

    def write(self, metrics: dict[str, float], global_step: int, now: float) -> None:
        """Keep `metrics` of `global_step`, taken at Unix second `now`."""

    def close(self) -> None:
        """Write out what is left."""


def step_metrics(status: RunStatus) -> dict[str, float]:
    """The scalars of a status, named group/name; unknown numbers are left out."""
    counts = count_by_state(status)
    values: dict[str, float | None] = {
        "loss/train": status.train_loss,
        "loss/heldout": status.heldout_loss,
        "swarm/peers_online": status.peers_online,
        **{f"peers/{state}": count for state, count in counts.items()},
        "swarm/samples_per_second": status.samples_per_second,
        "swarm/samples_total": status.samples_total,
        "swarm/goodput": status.goodput,
    }
    return {name: float(value) for name, value in values.items() if value is not None}


class TensorBoardLog:
    """Event files in a directory, e.g. `RUN_DIR/tensorboard`; each start of the coordinator adds one.

    >>> log = TensorBoardLog(Path("runs/demo/tensorboard"))                      # doctest: +SKIP
    >>> log.write(step_metrics(status), status.global_step, time.time())         # doctest: +SKIP
    """

    def __init__(self, directory: Path) -> None:
        """Begin a file. Raises `MetricLogError`."""
        # The queue of tensorboardX' own SummaryWriter blocks for ever once its thread meets a full disk.
        from tensorboardX.event_file_writer import EventsWriter

        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._writer: Any = EventsWriter(str(directory / "events"))
        except OSError as error:
            raise MetricLogError(
                f"TensorBoard files cannot be written to {directory} ({error.strerror or error}): "
                "free some space there or change its rights"
            ) from error

    def write(self, metrics: dict[str, float], global_step: int, now: float) -> None:
        """Append and flush; see `MetricLog`."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary

        if self._writer is None:
            return
        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        event = Event(wall_time=now, step=global_step, summary=Summary(value=values))
        try:
            self._writer.write_event(event)
            self._writer.flush()
        except OSError as error:
            logger.warning("TensorBoard files are given up (%s); the history goes on", error)
            self._writer = None

    def close(self) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
