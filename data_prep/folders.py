"""Output folders that are either finished or absent.

The temporary folder's name tells which process of which machine writes it, so that what a killed one left is
removed by the next attempt.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_prep.errors import DataError


@contextmanager
def finished_folder(output_dir: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``output_dir`` if the body succeeds and is removed otherwise."""
    if output_dir.exists() and (not output_dir.is_dir() or any(output_dir.iterdir())):
        raise DataError(f"{output_dir} exists and is not empty: name another folder or remove it")
    try:
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        begun = f".{output_dir.name}-{platform.node()}-"
        _remove_abandoned(output_dir.parent, begun)
        folder = Path(tempfile.mkdtemp(prefix=f"{begun}{os.getpid()}-", dir=output_dir.parent))
    except OSError as error:
        raise DataError(f"cannot write beside {output_dir}: {error.strerror}") from error
    try:
        yield folder
        folder.chmod(0o755)
        os.replace(folder, output_dir)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(parent: Path, begun: str) -> None:
    for folder in (entry for entry in parent.iterdir() if entry.name.startswith(begun)):
        process = folder.name.removeprefix(begun).partition("-")[0]
        if process.isdigit() and not Path(f"/proc/{process}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
