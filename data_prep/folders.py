"""Output folders that are either finished or absent."""

from __future__ import annotations

import os
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
        folder = Path(tempfile.mkdtemp(prefix=f".{output_dir.name}-", dir=output_dir.parent))
    except OSError as error:
        raise DataError(f"cannot write beside {output_dir}: {error.strerror}") from error
    try:
        yield folder
        folder.chmod(0o755)
        os.replace(folder, output_dir)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
