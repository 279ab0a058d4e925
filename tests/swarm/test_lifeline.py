"""Whose signals libp2p's daemon hears, and how long it lives."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.line_process import ROOT

NODE = """
import pathlib, signal, sys
from swarm.admission import Admission
from swarm.dht import open_dht

if __name__ == "__main__":
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.SIG_IGN)
    dht = open_dht(identity_path=pathlib.Path(sys.argv[1]), admission=Admission("run", ()))
    print(dht.pid, flush=True)
    for line in sys.stdin:
        print(*dht.get_visible_maddrs(), flush=True)
"""
PARENT = """
import multiprocessing, sys, time
from swarm.lifeline import SharedFate

if __name__ == "__main__":
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(3600,))
    child.start()
    fate = SharedFate(averager=child)
    print(child.pid, flush=True)
    if sys.stdin.readline().strip() == "stop":
        fate.stop()
        child.kill()
        child.join()
        print("stopped", flush=True)
    else:
        time.sleep(3600)
"""
DEADLINE = 20.0


@contextlib.contextmanager
def running(code: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A program in a process group of its own, which ends with the context."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with running(NODE, str(tmp_path / "identity.key")) as process:
        yield process


def daemon_of(dht: int) -> int:
    listings = Path(f"/proc/{dht}/task").glob("*/children")
    (daemon,) = (int(child) for listing in listings for child in listing.read_text().split())
    assert "p2pd" in Path(f"/proc/{daemon}/cmdline").read_text()
    return daemon


def test_the_daemon_hears_nothing_of_signals_to_our_group_and_dies_with_us(
    node: subprocess.Popen[str],
) -> None:
    assert node.stdin is not None
    assert node.stdout is not None
    dht = int(node.stdout.readline())
    daemon = daemon_of(dht)
    os.killpg(node.pid, signal.SIGINT)
    os.killpg(node.pid, signal.SIGTERM)
    node.stdin.write("\n")
    node.stdin.flush()
    assert "/p2p/" in node.stdout.readline()
    assert daemon_of(dht) == daemon
    # wakes up when the process ends, also one that is not our child
    with os.fdopen(os.pidfd_open(daemon)) as watched:
        node.kill()
        ended, _, _ = select.select([watched], [], [], DEADLINE)
    assert ended


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[str]]:
    with running(PARENT) as process:
        yield process


def test_who_loses_a_process_of_its_own_ends_and_says_so(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    os.kill(int(parent.stdout.readline()), signal.SIGKILL)
    _out, errors = parent.communicate(timeout=DEADLINE)
    assert parent.returncode == 1
    assert errors.splitlines() == [
        "error: the process of our averager was killed by SIGKILL, perhaps because memory ran out: start again"
    ]


def test_who_ends_its_processes_itself_goes_on(parent: subprocess.Popen[str]) -> None:
    assert parent.stdout is not None
    parent.stdout.readline()
    out, errors = parent.communicate("stop\n", timeout=DEADLINE)
    assert (parent.returncode, out, errors) == (0, "stopped\n", "")
