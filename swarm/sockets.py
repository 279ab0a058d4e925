"""The Unix sockets through which processes talk to libp2p's daemon: named after their owner, and swept up.

hivemind leaves them behind when a process is killed. Every owner holds a lock as long as it or a child of it lives;
the sockets of an owner whose lock is free are dead. (A pid would mean nothing to another container that shares the
folder, and knocking at a socket would disturb the living.)
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from hivemind.p2p import P2P

# the kernel allows about 100 characters for the whole path, too few for some $TMPDIR
FOLDER = Path("/tmp")
PREFIX = "artel-"

_owned: dict[Path, TextIO] = {}


def name_our_sockets() -> None:
    """Give the sockets of this process and its future children a name of our own; call before hivemind makes any."""
    if _owned:
        return
    lock = FOLDER / f"{PREFIX}{os.getpid()}-{secrets.token_hex(4)}.lock"
    while True:
        file = lock.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        if lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
            break  # otherwise somebody swept it between opening and locking
        file.close()
    _owned[lock] = file  # held until this process and all its children have ended
    P2P._UNIX_SOCKET_PREFIX = f"/unix{lock.with_suffix('')}-"


@contextlib.contextmanager
def sockets_of_our_own() -> Iterator[None]:
    """Everything that makes sockets happens inside of this; none of them is left when it ends."""
    sweep_dead_sockets()
    name_our_sockets()
    try:
        yield
    finally:
        remove_our_sockets()


def remove_our_sockets() -> None:
    """Called when everything that used them has ended."""
    for lock, file in list(_owned.items()):
        _remove(lock)
        file.close()
        del _owned[lock]


def sweep_dead_sockets() -> None:
    """Remove the sockets of processes that were killed."""
    for lock in FOLDER.glob(f"{PREFIX}*.lock"):
        # another user's, or swept by another process at the same time
        with contextlib.suppress(OSError), lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(lock)


def _remove(lock: Path) -> None:
    for path in FOLDER.glob(f"{lock.stem}-*.sock"):
        path.unlink(missing_ok=True)
    lock.unlink(missing_ok=True)
