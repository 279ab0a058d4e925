"""Sockets of the dead are swept, those of the living are not."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from swarm.sockets import FOLDER, sweep_dead_sockets

PROGRAM = """
import sys, socket
from hivemind.p2p import P2P
from swarm.sockets import name_our_sockets, remove_our_sockets
name_our_sockets()
path = P2P._UNIX_SOCKET_PREFIX.removeprefix("/unix") + "p2pd-test.sock"
server = socket.socket(socket.AF_UNIX); server.bind(path); server.listen()
print(path, flush=True)
sys.stdin.readline()
remove_our_sockets()
print("removed", flush=True)
"""


def start() -> tuple[subprocess.Popen[str], Path]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_the_living_keep_theirs_and_the_killed_leave_nothing():
    process, path = start()
    try:
        assert path.parent == FOLDER
        sweep_dead_sockets()
        assert path.exists()
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    sweep_dead_sockets()
    assert not path.exists()
    assert not list(FOLDER.glob(f"{path.name.rsplit('-', 2)[0]}*"))


def test_who_ends_in_order_removes_its_own():
    process, path = start()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "removed\n"
    assert not path.exists()
    process.wait(10)
