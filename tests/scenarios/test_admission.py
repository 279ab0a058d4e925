"""A run by invitation, with real processes: who is let in, who is not, and who is put out."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys

import pytest

from tests.scenarios.swarm_under_test import ROOT, SwarmUnderTest

INVITED = re.compile(r"--ticket (artel-[A-Za-z0-9_-]+)$")


def coordinator(swarm: SwarmUnderTest, *arguments: str) -> str:
    """What a sub-command of `coordinator` prints."""
    main = "from coordinator.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", main, *arguments, "--run-dir", str(swarm.run_dir)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def swarm(make_spec, make_swarm) -> SwarmUnderTest:
    swarm = make_swarm(make_spec(admission="invite"))
    swarm.start_coordinator()
    return swarm


@pytest.mark.timeout(600)
def test_a_run_by_invitation_from_the_token_to_the_eviction(swarm, tmp_path):
    swarm.wait_for(lambda: (swarm.run_dir / "control.txt").exists(), "the control API")
    line = coordinator(swarm, "invite", "anna", "--machines", "2", "--expires", "1h")
    token = INVITED.search(line)
    assert token is not None
    assert line.startswith(swarm.join_line())

    stranger = swarm.start_peer("stranger")
    anna = swarm.start_peer("anna", line=line)
    own_cache = ("--cache-dir", str(tmp_path / "bert"))
    bert = swarm.start_peer("bert", *own_cache, line=line)
    swarm.wait_for(lambda: stranger.poll() is not None, "the end of the stranger")
    assert stranger.returncode == 2
    assert "by invitation" in swarm.errors("stranger")
    swarm.wait_for(
        lambda: any(event["group"] == 2 for event in swarm.events("anna", "step")),
        "a step of both",
        alive=anna,
    )
    # the token is for two machines, which have come
    third = swarm.start_peer("third", line=line)
    swarm.wait_for(lambda: third.poll() is not None, "the end of the third")
    assert third.returncode == 2
    assert "has been used by 2 other machines" in swarm.errors("third")

    assert "bert" in coordinator(swarm, "evict", "bert", "--reason", "only a test")
    swarm.wait_for(lambda: bert.poll() is not None, "the end of the evicted peer", deadline=60)
    assert bert.returncode == 1
    assert "evicted" in swarm.errors("bert")
    alone = max(swarm.steps("anna"))
    swarm.wait_for(lambda: max(swarm.steps("anna")) > alone + 1, "steps without it", alive=anna)
    assert swarm.events("anna", "step")[-1]["group"] == 1

    # its ticket is still there
    again = swarm.start_peer("again", *own_cache)
    swarm.wait_for(lambda: again.poll() is not None, "the end of the evicted peer's second try")
    assert again.returncode == 2
    assert "evicted from the run" in swarm.errors("again")
    for name in ("anna", "bert", "third", "stranger", "again", "coordinator"):
        assert token[1] not in swarm.errors(name)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.glob("*/tickets/*")}
    assert modes
    assert set(modes.values()) == {0o600}
    books = swarm.run_dir / "admission.json"
    assert books.stat().st_mode & 0o777 == 0o600
    assert token[1] not in books.read_text()
    assert [event["reason"] for event in json.loads(books.read_text())["evicted"].values()] == ["only a test"]


@pytest.mark.heavy
@pytest.mark.timeout(600)
def test_the_swarm_goes_on_and_peers_come_back_while_the_coordinator_is_away(swarm):
    swarm.wait_for(lambda: (swarm.run_dir / "control.txt").exists(), "the control API")
    line = coordinator(swarm, "invite", "anna", "--machines", "2")
    anna, _bert = swarm.start_peer("anna", line=line), swarm.start_peer("bert", line=line)
    swarm.wait_for(lambda: swarm.steps("anna") and swarm.steps("bert"), "steps of both", alive=anna)
    shutil.copy(swarm.run_dir / "join.txt", swarm.folder / "line.txt")
    for process in swarm.coordinators:
        process.kill()
        process.wait()
    before = max(swarm.steps("anna"))
    swarm.wait_for(lambda: max(swarm.steps("anna")) > before + 2, "steps without a coordinator", alive=anna)
    assert swarm.events("anna", "step")[-1]["group"] == 2
