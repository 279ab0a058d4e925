"""`coordinator watch` in a real terminal."""

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coordinator.history import History
from coordinator.run_directory import RunDirectory
from tests.coordinator.runs import peer, run_status

WATCH = [sys.executable, "-c", "from coordinator.cli import main; main()", "watch", "--run-dir"]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    directory, now = RunDirectory(tmp_path), time.time()
    status = run_status(peer(1, samples=640), peer(2, "lost"), generated_at=now)
    directory.write_status(status)
    history = History(directory.history_path)
    history.record_status(status, now)
    history.close()
    return tmp_path


def read_until(terminal: int, words: bytes, deadline: float = 60.0) -> bytes:
    shown, end = b"", time.monotonic() + deadline
    while words not in shown:
        ready, _, _ = select.select([terminal], [], [], max(0.0, end - time.monotonic()))
        assert ready, f"no {words!r} in {shown!r}"
        try:
            shown += os.read(terminal, 65536)
        except OSError:  # nobody has the other end any more
            pytest.fail(f"it has ended after {shown.decode(errors='replace')!r}")
    return shown


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_essentials_are_drawn_until_told_to_end(run_dir: Path, signum: signal.Signals) -> None:
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [*WATCH, str(run_dir)],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**os.environ, "COLUMNS": "120"},
        # a shell's background jobs, and with them these tests, may ignore it
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    os.close(its)
    try:
        shown = read_until(ours, b"otter-2").decode(errors="replace")
        assert "peers over time" in shown
        assert "otter-1" in shown
        process.send_signal(signum)
        read_until(ours, b"\x1b[?1049l")  # the terminal is as it was before
        assert process.wait(timeout=30) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_without_a_terminal_it_says_what_to_use(run_dir: Path) -> None:
    process = subprocess.run([*WATCH, str(run_dir)], capture_output=True, text=True, timeout=60)
    assert process.returncode == 2
    assert process.stderr.startswith(
        "error: `coordinator watch` draws in a terminal: use `coordinator status"
    )
