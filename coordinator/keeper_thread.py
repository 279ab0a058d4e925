"""The thread that lets the state keeper follow the swarm, and makes checkpoints when asked.

It may wait long for a donor or for the checkpoint worker; tracker, page, control API and head records do not.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

from coordinator.checkpoints import Checkpoint
from coordinator.events import Announce, Event
from coordinator.state_keeper import StateKeeper
from coordinator.tracker import Tracker
from swarm.errors import ArtelError, OperationFailed

# after what nobody has foreseen
PAUSE_SECONDS = 20.0


class KeeperThread:
    """Follows until stopped.

    :param announce: told when a checkpoint fails
    :param made: told of every new checkpoint
    :param period: seconds between two looks at the swarm
    """

    def __init__(
        self,
        keeper: StateKeeper,
        tracker: Tracker,
        announce: Announce,
        made: Callable[[Checkpoint], None],
        period: float,
    ):
        self.keeper, self.tracker = keeper, tracker
        self.announce, self.made, self.period = announce, made, period
        self._asked: queue.SimpleQueue[Future[Checkpoint]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def stop(self, timeout: float) -> None:
        """Follow no longer: what is being written is given up, a download is left behind with its thread."""
        self._stop.set()
        self.keeper.worker.close()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def request_checkpoint(self) -> Future[Checkpoint]:
        """A checkpoint of the newest state that can be had, as soon as the keeper gets to it."""
        wish: Future[Checkpoint] = Future()
        self._asked.put(wish)
        return wish

    def _run(self) -> None:
        while not self._stop.is_set():
            self._guard(self._follow)
            self._guard(self._fulfil_wishes)
            self._stop.wait(self.period)

    def _guard(self, work: Callable[[], None]) -> None:
        """The run's only copies depend on this thread: whatever goes wrong is told, and tried again."""
        try:
            work()
        except ArtelError as error:  # a full disk, or a worker that was killed
            self._tell(error)
        except Exception as error:
            self._tell(OperationFailed(f"{type(error).__name__}: {error}"))
            self._stop.wait(PAUSE_SECONDS)

    def _tell(self, error: ArtelError) -> None:
        if not self._stop.is_set():
            self.announce(Event("checkpoint_failed", str(error), data={"reason": str(error)}))

    def _follow(self) -> None:
        checkpoint = self.keeper.follow(self.tracker.view, self.tracker.status.train_loss)
        if checkpoint is not None:
            self.made(checkpoint)

    def _fulfil_wishes(self) -> None:
        wishes = []
        while not self._asked.empty():
            wishes.append(self._asked.get())
        if not wishes:
            return
        before = self.keeper.last_checkpoint
        try:
            checkpoint = self.keeper.checkpoint_now(self.tracker.view, self.tracker.status.train_loss)
        except Exception as error:
            told = error if isinstance(error, ArtelError) else OperationFailed(f"no checkpoint: {error}")
            for wish in wishes:
                wish.set_exception(told)
            raise
        for wish in wishes:
            wish.set_result(checkpoint)
        if checkpoint is not before:
            self.made(checkpoint)
