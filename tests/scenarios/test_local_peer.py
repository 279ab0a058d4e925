"""One command on one machine: ordinary training with checkpoints and resume."""

from __future__ import annotations

import signal

import pytest

DEADLINE = 400.0


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_one_command_trains_leaves_its_state_and_resumes(make_swarm, make_spec):
    swarm = make_swarm(make_spec(training={"total_steps": 100_000}))
    options = f"--device cpu --ranks 2 --micro-batch-size 4 --cache-dir {swarm.folder / 'cache'}"
    arguments = ("--with-local-peer", "--local-peer-options", options)
    first = swarm.start_coordinator(*arguments, wait=False)
    swarm.wait_for(
        lambda: swarm.status().get("global_step", 0) >= 3, "three steps", alive=first, deadline=DEADLINE
    )
    (peer,) = swarm.status()["peers"]
    assert peer["ranks"] == 2
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) == 0
    reached = swarm.status()["global_step"]
    output = (swarm.folder / "coordinator.out").read_text()
    assert "left: told to go by SIGTERM" in output
    second = swarm.start_coordinator(*arguments, wait=False)
    swarm.wait_for(
        lambda: swarm.status().get("global_step", 0) > reached,
        "a later step",
        alive=second,
        deadline=DEADLINE,
    )
    output = (swarm.folder / "coordinator.out").read_text()
    assert f"resumed at step {reached}" in output
    assert f"state of step {reached} " in output
    second.kill()
    second.wait()
