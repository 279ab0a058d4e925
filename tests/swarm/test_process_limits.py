"""What a computing peer leaves to others: within its session, and, where that is its own, among sessions."""

from __future__ import annotations

import subprocess
import sys

import pytest

from swarm.process_limits import AUTOGROUP, NICENESS

TELL = """
import os
from pathlib import Path
from swarm.process_limits import AUTOGROUP, yield_to_others
before = os.nice(0)
yield_to_others()
print(os.nice(0) - before, AUTOGROUP.read_text().split()[-1] if AUTOGROUP.exists() else "-")
"""


def told(*, own_session: bool) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", TELL],
        capture_output=True,
        text=True,
        check=True,
        start_new_session=own_session,
    )
    return done.stdout.split()


def test_a_session_of_our_own_yields_as_a_whole():
    niceness, session = told(own_session=True)
    assert int(niceness) == NICENESS
    if session == "-":
        pytest.skip("this kernel does not weigh sessions")
    assert int(session) == NICENESS


def test_somebody_elses_session_keeps_its_weight():
    if not AUTOGROUP.exists():
        pytest.skip("this kernel does not weigh sessions")
    ours = AUTOGROUP.read_text().split()[-1]
    assert told(own_session=False) == [str(NICENESS), ours]
