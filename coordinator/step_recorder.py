"""Writes every global step into the history and the metric logs: once when it is seen, again as more of it is heard.

A peer tells of its step at once and of the averaging round behind it a moment later, so the first look at a step may
find nothing of its round, or the word of one peer.
"""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.history import History
from coordinator.metric_logs import MetricLog, step_metrics
from coordinator.status import RunStatus
from coordinator.tracker import LastRound, Tracker
from swarm.codecs import compressed_bytes
from swarm.spec import AveragingSpec


class StepRecorder:
    """Called with every status by the one thread that tracks.

    :param shapes: of the tensors that are averaged
    """

    def __init__(self, history: History, log: MetricLog, tracker: Tracker, shapes: Sequence[Sequence[int]]):
        self.history, self.log, self.tracker, self.shapes = history, log, tracker, shapes
        self._step = tracker.view.newest_step
        self._status: RunStatus | None = None
        self._round: LastRound | None = None
        self._failures: tuple[int, str | None] = (0, None)

    def record(self, status: RunStatus) -> None:
        """Keep the step of this status if it is new, or what is new of it; raises `HistoryError`."""
        if status.global_step > self._step:
            self._step, self._status = status.global_step, status
            self._failures = self.tracker.take_failures()
            self._keep(status, self.tracker.last_round())
            self.log.write(step_metrics(status), status.global_step, status.generated_at)
        elif self._status is not None and status.global_step == self._step:
            found = self.tracker.last_round()
            if found is not None and found != self._round:
                self._keep(self._status, found)

    def _keep(self, status: RunStatus, found: LastRound | None) -> None:
        failed, reason = self._failures
        self._round = found
        self.history.record_step(
            status.global_step,
            status.generated_at,
            status.train_loss,
            samples=status.target_batch_size,
            group_size=found.group_size if found else 0,
            received_fraction=found.received_fraction if found else None,
            seconds=found.seconds if found else None,
            peers_alive=status.peers_online,
            bytes_averaged=self._traffic(status.global_step, found.group_size) if found else None,
            failed_rounds=failed,
            reason=reason,
        )

    def _traffic(self, step: int, group_size: int) -> int:
        """Bytes that a group sends in one step: everyone's share goes to every other member, and back averaged."""
        averaging = self.tracker.spec.averaging
        return 2 * max(0, group_size - 1) * bytes_of_step(averaging, self.shapes, step)


def bytes_of_step(averaging: AveragingSpec, shapes: Sequence[Sequence[int]], step: int) -> int:
    """Compressed size of the gradients, and of the parameters where the step re-averages them."""
    codec, rank = averaging.gradient_compression, averaging.rank
    gradients = sum(compressed_bytes(shape, codec, rank) for shape in shapes)
    parameters = sum(compressed_bytes(shape, averaging.state_compression) for shape in shapes)
    return gradients + (parameters if step % averaging.state_every == 0 else 0)
