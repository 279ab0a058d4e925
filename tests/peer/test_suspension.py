"""A process that was stopped notices it; one that was busy does not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PROGRAM = """
import sys, time
from peer.suspension import SuspensionWatch
watch = SuspensionWatch(threshold=2.0); watch.start()
print("ready", flush=True)
sys.stdin.readline()
print(watch.seconds > 2, watch.take() > 2, watch.seconds, flush=True)
"""


def run(stopped_for: float) -> str:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        if stopped_for:
            os.kill(process.pid, signal.SIGSTOP)
            time.sleep(stopped_for)  # the length of the suspension is what is tested
            os.kill(process.pid, signal.SIGCONT)
        process.stdin.write("\n")
        process.stdin.flush()
        return process.stdout.readline()
    finally:
        process.kill()
        process.wait()


def test_a_stopped_process_knows_for_how_long_and_forgets_when_told():
    assert run(stopped_for=2.5) == "True True 0.0\n"


def test_a_process_that_always_ran_knows_that_too():
    assert run(stopped_for=0.0) == "False False 0.0\n"
