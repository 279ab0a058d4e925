"""Output folders that are either finished or absent, each written by one process at a time.

The temporary folder's name tells which process of which machine writes it, so that what a killed one left is
removed by the next attempt. The lock is the kernel's: it ends with its process, however that ends.
"""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from data_prep.errors import DataError

_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def finished_folder(output_dir: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``output_dir`` if the body succeeds and is removed otherwise.

    Raises ``DataError`` when ``output_dir`` is not empty, cannot be written, or is being written.
    """
    _require_absent(output_dir)
    with _begun(output_dir) as folder:
        try:
            yield folder
            folder.chmod(0o755)
            os.replace(folder, output_dir)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _begun(output_dir: Path) -> Iterator[Path]:
    begun = f".{output_dir.name}-{platform.node()}-"
    try:
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        lock = _lock(output_dir)
    except OSError as error:
        raise _told(error, output_dir) from error
    try:
        _require_absent(output_dir)  # another process may just have finished it
        try:
            _remove_abandoned(output_dir.parent, begun)
            folder = Path(tempfile.mkdtemp(prefix=f"{begun}{os.getpid()}-", dir=output_dir.parent))
        except OSError as error:
            raise _told(error, output_dir) from error
        yield folder
    finally:
        _lock_path(output_dir).unlink(missing_ok=True)
        os.close(lock)


def _require_absent(output_dir: Path) -> None:
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise DataError(f"{output_dir} exists and is not empty: name another folder or remove it")


def _told(error: OSError, output_dir: Path) -> Exception:
    """Where one may not write is bad input; that there is no room, bad luck."""
    if error.errno in _FULL:
        return error
    return DataError(f"cannot write beside {output_dir}: {error.strerror}")


def _lock_path(output_dir: Path) -> Path:
    return output_dir.parent / f".{output_dir.name}.lock"


def _lock(output_dir: Path) -> int:
    path = _lock_path(output_dir)
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise DataError(
                f"another process is writing {output_dir}: wait for it, or name another folder"
            ) from None
        except OSError:  # a file system without locks
            return file
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), path.stat()):
                return file
        os.close(file)  # the file's last holder has just removed it


def _remove_abandoned(parent: Path, begun: str) -> None:
    for folder in (entry for entry in parent.iterdir() if entry.name.startswith(begun)):
        process = folder.name.removeprefix(begun).partition("-")[0]
        if process.isdigit() and not Path(f"/proc/{process}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
