"""A child process spoken to by JSON lines, ended with the test that started it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


class LineProcess:
    """Starts `python -m MODULE ARGUMENTS…` and reads one JSON object per line of its stdout.

    :param deadline: seconds that `hear` waits for a line
    :param on: what to put before the command, to run it on another host
    """

    def __init__(self, module: str, *arguments: str, deadline: float = 60.0, on: Sequence[str] = ()):
        self.deadline = deadline
        self._lines: queue.Queue[str | None] = queue.Queue()
        self.process = subprocess.Popen(
            [*on, sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "HIVEMIND_LOGLEVEL": "CRITICAL"},
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def tell(self, **command: Any) -> None:
        """Send one command."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next line, or a failure if none comes in time."""
        line = self._lines.get(timeout=self.deadline)
        if line is None:
            raise AssertionError(f"the process ended with code {self.process.wait()}")
        return json.loads(line)

    def kill_group(self) -> None:
        """End the process and everything below it, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)
