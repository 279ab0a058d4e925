"""Files that are there whole or not at all, also after a kill or a power cut.

A file is written beside its place, synced to the disk and renamed; syncing the folder makes the rename last. All
functions raise `OSError` where the disk does not take it, and then the old file is still there.
"""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, content: bytes, *, mode: int = 0o666, lasting: bool = True) -> None:
    """Replace the file at `path`, or create it.

    :param mode: its rights, less the umask
    :param lasting: False for what is written again every second and worth nothing after a power cut: it is not synced
    """
    temporary = beside(path)
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        if lasting:
            move_into_place(temporary, path)
        else:
            os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def beside(path: Path) -> Path:
    """Where the file is written before it takes its place; one writer at a time."""
    return path.with_name(f".{path.name}.tmp")


def move_into_place(temporary: Path, path: Path) -> None:
    """Sync what somebody else has written to `temporary`, and rename it to `path`."""
    sync(temporary)
    os.replace(temporary, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
