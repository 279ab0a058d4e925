"""Whole runs that average in other ways: beside computing, in factors, and after steps of their own."""

from __future__ import annotations

import pytest


def peer_facts(swarm, name: str) -> dict:
    return next(peer for peer in swarm.status()["peers"] if peer["name"] == name)


def test_a_run_that_overlaps_ends_with_everything_counted(make_swarm, make_spec):
    """Two peers, one of which leaves amid steps: what it computed is in steps or handed over, and nothing waits."""
    swarm = make_swarm(
        make_spec(
            averaging={"overlap": True, "gradient_compression": "low_rank", "rank": 2},
            training={"total_steps": 8, "warmup_steps": 2},
        )
    )
    swarm.start_coordinator()
    stays, leaves = swarm.start_peer("stays"), swarm.start_peer("leaves")
    swarm.wait_for(lambda: len(swarm.steps("leaves")) >= 2, "two steps together", alive=leaves)
    leaves.terminate()
    assert leaves.wait(40) == 0
    (left,) = swarm.events("leaves", "left")
    handed = sum(event["samples"] for event in swarm.events("leaves", "handed_over"))
    reloaded = bool(swarm.events("leaves", "reloading"))
    assert reloaded or left["samples_contributed"] + handed == left["samples_computed"]
    assert stays.wait(120) == 0
    steps = swarm.events("stays", "step")
    assert steps[-1]["global_step"] == 8
    assert all(step["seconds"]["averaging"] == 0 < step["seconds"]["step"] for step in steps)
    assert steps[-1]["loss"] < steps[0]["loss"]


@pytest.mark.heavy
def test_peers_with_local_steps_learn_and_a_newcomer_goes_on_from_the_last_global_step(make_swarm, make_spec):
    swarm = make_swarm(
        make_spec(
            local_steps={"batch_size": 16},
            training={"total_steps": 10, "warmup_steps": 1, "target_batch_size": 256},
        )
    )
    coordinator = swarm.start_coordinator()
    first, second = swarm.start_peer("first"), swarm.start_peer("second")
    swarm.wait_for(lambda: len(swarm.steps("second")) >= 2, "two steps together", alive=second)
    newcomer = swarm.start_peer("newcomer")
    swarm.wait_for(lambda: swarm.events("newcomer", "synced"), "its state", alive=newcomer)
    assert swarm.events("newcomer", "synced")[0]["donor"] is not None
    for process in (first, second, newcomer):
        assert process.wait(120) == 0
    steps = swarm.events("first", "step")
    assert steps[-1]["loss"] < steps[0]["loss"]
    swarm.wait_for(lambda: swarm.status()["global_step"] == 10, "the last state", alive=coordinator)
