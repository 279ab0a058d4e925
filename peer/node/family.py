"""Who is there: every rank knows the process ids of all, and notices within half a second when one has gone.

An exchange with a dead rank may hang for minutes; so a follower that misses anybody ends itself, and the leader leaves
the swarm with what it has.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import timedelta

from torch.distributed import Store, TCPStore

LOOK_SECONDS = 0.25
REQUEST_TIMEOUT = timedelta(seconds=60)


def connect_store(host: str, port: int) -> TCPStore:
    """A connection of our own to the supervisor's store; one per thread, because waiting occupies it."""
    return TCPStore(host, port, None, False, REQUEST_TIMEOUT)


class Family:
    """The ranks of a node, as one of them sees the others."""

    def __init__(self, store: Store, rank: int, ranks: int):
        self._store, self.rank, self.ranks = store, rank, ranks
        self._parting = threading.Event()
        self.loss = ""
        store.set(f"pid/{rank}", str(os.getpid()))

    def watch(self, on_loss: Callable[[str], None]) -> None:
        """From now on, call `on_loss` once, in a thread, with words for the user, when another rank has gone."""
        pids = {rank: int(self._store.get(f"pid/{rank}")) for rank in range(self.ranks) if rank != self.rank}
        threading.Thread(target=self._watch, args=(pids, on_loss), name="family", daemon=True).start()

    def part(self) -> None:
        """From now on everybody may go."""
        self._parting.set()

    def _watch(self, pids: dict[int, int], on_loss: Callable[[str], None]) -> None:
        while not self._parting.wait(LOOK_SECONDS):
            for rank, pid in pids.items():
                if not is_alive(pid) and not self._parting.is_set():
                    self.loss = f"rank {rank} has ended unexpectedly"
                    on_loss(self.loss)
                    return


def is_alive(pid: int) -> bool:
    """Whether a process of ours exists; one that its parent has not buried yet does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        pass
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return not os.path.isdir("/proc/self")


TOLD = "told"
JOINED = "joined"


def listen_for_word(host: str, port: int, tell: Callable[[str], None]) -> None:
    """In a thread: call `tell` with the reason when the supervisor says that this node is to go."""

    def listen() -> None:
        store = connect_store(host, port)
        store.set(JOINED, "")
        while not store.check([TOLD]):
            time.sleep(LOOK_SECONDS)
        tell(store.get(TOLD).decode())

    threading.Thread(target=listen, name="word", daemon=True).start()
