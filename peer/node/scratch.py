"""A folder for the temporary files of one supervisor: gone with it, or swept up by the next one if it was killed.

Sockets are among the files, and the kernel allows their paths 107 bytes: where a batch system's TMPDIR leaves too few
of them, /tmp takes its place.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from swarm.errors import OperationFailed

PREFIX = "artel-ranks-"
LOCK = "lock"
SOCKET_PATH_BYTES = 107
# what mkdtemp appends, and the folder and the name that multiprocessing gives its socket
BELOW = f"/{PREFIX}01234567/pymp-01234567/listener-01234567"
USUAL_PLACE = "/tmp"


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """All temporary files that this process makes inside of this go into a folder of their own.

    :raises OperationFailed: if there is no place for one
    """
    place = place_for_sockets()
    sweep_dead_folders(place)
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=place, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (folder / LOCK).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            tempfile.tempdir = name
            try:
                yield folder
            finally:
                tempfile.tempdir = before


def place_for_sockets() -> str:
    """The folder for temporary files, or /tmp if its path is too long; raises `OperationFailed` if neither will do."""
    places = (tempfile.gettempdir(), USUAL_PLACE)
    for place in places:
        if len(os.fsencode(place + BELOW)) <= SOCKET_PATH_BYTES and os.access(place, os.W_OK | os.X_OK):
            return place
    raise OperationFailed(
        f"TMPDIR {places[0]} is too long for the paths of sockets, and {USUAL_PLACE} cannot be written to: set TMPDIR "
        f"to a folder whose path has at most {SOCKET_PATH_BYTES - len(BELOW)} characters"
    )


def sweep_dead_folders(place: str) -> None:
    """Remove the folders of supervisors that were killed: nobody holds their lock any more."""
    for lock in Path(place).glob(f"{PREFIX}*/{LOCK}"):
        # another user's, alive, or swept by another process at the same time
        with contextlib.suppress(OSError), lock.open("r") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(lock.parent, ignore_errors=True)
