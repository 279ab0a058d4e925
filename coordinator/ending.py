"""When a coordinator that ends with its run (`--exit-when-finished`) may go.

Once the run is finished, it stays until its peers have seen the final head record, and until the last checkpoint is
uploaded where `checkpoints.publish` asks for it: both within limits, for neither peers nor a hub may keep it for ever.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from coordinator.checkpoints import Checkpoint
from coordinator.publisher import LONGEST_UPLOAD_SECONDS, Publisher
from swarm.errors import OperationFailed


class Ending:
    """Asked again and again from the moment the run is finished.

    :param peers_seconds: how long peers have to leave
    :param say: told what is waited for

    >>> ending = Ending(publisher, peers_seconds=10.0, say=print)           # doctest: +SKIP
    >>> ending.is_over(last_checkpoint, peers_online=0)                     # doctest: +SKIP
    waiting up to 4 h until the checkpoint of step 100 is uploaded to owner/model; Ctrl-C ends it
    False
    """

    def __init__(self, publisher: Publisher, peers_seconds: float, say: Callable[[str], None]):
        self.publisher, self.peers_seconds, self.say = publisher, peers_seconds, say
        self._began: float | None = None

    def is_over(self, last: Checkpoint, peers_online: int) -> bool:
        """Whether nothing keeps the coordinator; raises `OperationFailed` if the last upload takes too long."""
        began = self._began if self._began is not None else self._begin(last)
        waited = time.monotonic() - began
        if peers_online and waited < self.peers_seconds:
            return False
        if self.publisher.wait(timeout=0):
            return True
        if waited >= LONGEST_UPLOAD_SECONDS:
            raise OperationFailed(
                f"the last checkpoint, of step {last.step}, was not uploaded to {self.publisher.repository} within "
                f"{LONGEST_UPLOAD_SECONDS / 3600:g} h: start the coordinator again to go on trying"
            )
        return False

    def _begin(self, last: Checkpoint) -> float:
        self._began = time.monotonic()
        self.publisher.offer(last)
        if not self.publisher.wait(timeout=0):
            self.say(
                f"waiting up to {LONGEST_UPLOAD_SECONDS / 3600:g} h until the checkpoint of step {last.step} is "
                f"uploaded to {self.publisher.repository}; Ctrl-C ends it"
            )
        return self._began
