"""`peer bench --ranks` that is stopped, or loses a rank: ends in seconds, says so in a line, and leaves nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from peer.node.family import is_alive
from peer.node.interruption import Interrupted, stopped_by_signals
from tests.scenarios.swarm_under_test import ROOT, family, kill_group

DEADLINE = 240.0
# of a machine on which others compute; alone it takes one or two
ENDS_IN_SECONDS = 30.0
RANKS = 3


class RunningBench:
    """A bench whose several ranks are making steps."""

    def __init__(self, spec: Path, folder: Path):
        self.scratch, self._said = Path(tempfile.mkdtemp(prefix="bench-")), folder / "stderr"
        self.members: list[int] = []
        command = "from peer.cli import main; main()"
        options = ("--ranks", str(RANKS), "--precision", "fp32", "--micro-batch-size", "2", "--device", "cpu")
        with self._said.open("wb") as said:
            self.process = subprocess.Popen(
                # one rank has its steps at once, several have all the time that is left
                [sys.executable, "-c", command, "bench", str(spec), *options, "--seconds", "20"],
                stdout=subprocess.PIPE,
                stderr=said,
                cwd=ROOT,
                env={**os.environ, "TMPDIR": str(self.scratch), "PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
        self._wait_for(lambda: "ranks: 1, fp32" in self.said, DEADLINE)
        self._wait_for(lambda: len(self.ranks) == RANKS and all(map(has_gloo, self.ranks)), DEADLINE)
        self.members = family(self.process.pid)
        self.shared = {file for pid in self.members for file in shared_memory_of(pid)}

    @property
    def said(self) -> str:
        return self._said.read_text()

    @property
    def ranks(self) -> list[int]:
        servers = (pid for pid in family(self.process.pid) if "forkserver" in command_of(pid))
        return sorted(pid for server in servers for pid in family(server)[1:])

    def assert_nothing_is_left(self) -> None:
        self._wait_for(lambda: not any(map(is_alive, self.members)), ENDS_IN_SECONDS)
        assert [file for file in self.shared if file.exists()] == []

    def _wait_for(self, condition: Callable[[], object], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.said
            if not self.members:
                assert self.process.poll() is None, self.said
            time.sleep(0.02)


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def has_gloo(pid: int) -> bool:
    """Whether a rank has met the others: gloo has threads of its own."""
    names = []
    for file in Path(f"/proc/{pid}/task").glob("*/comm"):
        try:
            names.append(file.read_text())
        except OSError:
            continue
    return any("gloo" in name for name in names)


def shared_memory_of(pid: int) -> set[Path]:
    try:
        return {Path(found) for found in re.findall(r"/dev/shm/\S+", Path(f"/proc/{pid}/maps").read_text())}
    except OSError:
        return set()


@pytest.fixture
def bench(make_spec, tmp_path) -> Iterator[RunningBench]:
    bench = RunningBench(make_spec(), tmp_path)
    yield bench
    if bench.process.poll() is None:
        kill_group(bench.process)
    shutil.rmtree(bench.scratch, ignore_errors=True)


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("to_all", [True, False], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_all_ranks(bench, to_all):
    signum = signal.SIGINT if to_all else signal.SIGTERM
    (os.killpg if to_all else os.kill)(bench.process.pid, signum)
    assert bench.process.wait(ENDS_IN_SECONDS) == 128 + signum
    bench.assert_nothing_is_left()
    assert bench.said.splitlines()[-1] == f"error: stopped by {signum.name}"
    assert "Traceback" not in bench.said
    assert list(bench.scratch.iterdir()) == []


@pytest.mark.heavy
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rank", [0, RANKS - 1], ids=["the leader", "a follower"])
def test_a_killed_rank_costs_its_own_line_of_the_table(bench, rank):
    os.kill(bench.ranks[rank], signal.SIGKILL)
    table, _ = bench.process.communicate(timeout=ENDS_IN_SECONDS)
    assert bench.process.returncode == 1
    assert re.search(rf"^ranks: {RANKS}, fp32: could not be measured, for rank \d ", table.decode(), re.M)
    assert re.search(r"^ +1 +2 ", table.decode(), re.M)
    assert "Traceback" not in bench.said
    bench.assert_nothing_is_left()
    assert list(bench.scratch.iterdir()) == []


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_no_process_outlives_a_killed_bench(bench):
    bench.process.kill()
    bench.process.wait()
    bench.assert_nothing_is_left()


def test_being_stopped_unwinds_and_gives_the_signals_back():
    before, unwound = signal.getsignal(signal.SIGTERM), []

    def measure() -> None:
        with stopped_by_signals():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()
            except Exception:
                pytest.fail("taken for an error")
            finally:
                unwound.append(True)

    with pytest.raises(Interrupted, match="stopped by SIGTERM") as caught:
        measure()
    assert unwound
    assert caught.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
