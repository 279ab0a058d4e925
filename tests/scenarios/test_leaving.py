"""Peers that are told to go: their samples, their state and their grace period."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.scenarios.swarm_under_test import signal_family

ENDLESS = {"target_batch_size": 10_000_000}


@pytest.fixture
def start(make_swarm, make_spec):
    """A coordinator and peers of one run, all training."""

    def start(*names: str, options: tuple[str, ...] = (), **sections: dict):
        swarm = make_swarm(make_spec(**sections))
        swarm.start_coordinator()
        peers = [swarm.start_peer(name, *options) for name in names]
        for name, process in zip(names, peers, strict=True):
            swarm.wait_for(
                lambda name=name: accumulated(swarm, name) > 0, f"samples of {name}", alive=process
            )
        return swarm, peers

    return start


@pytest.mark.heavy
def test_samples_are_handed_over_when_the_step_does_not_come(start):
    swarm, (first, second) = start("first", "second", options=("--grace", "15"), training=ENDLESS)
    os.killpg(first.pid, signal.SIGTERM)  # as a terminal and a batch system do
    assert first.wait(15) == 0
    (handed,) = swarm.events("first", "handed_over")
    (left,) = swarm.events("first", "left")
    assert handed["samples"] == left["samples_computed"]
    assert left["reason"] == "told to go by SIGTERM"
    swarm.wait_for(lambda: swarm.events("second", "took_over"), "word of the heir", alive=second)
    assert swarm.events("second", "took_over")[0]["samples"] == handed["samples"]
    swarm.wait_for(lambda: peer_of(swarm, "first")["handed_over"], "the coordinator to know")
    swarm.wait_for(lambda: peer_of(swarm, "second")["taken_over"], "the heir to tell", alive=second)
    assert (
        peer_of(swarm, "second")["taken_over"] == handed["samples"] == peer_of(swarm, "first")["handed_over"]
    )
    assert accumulated(swarm, "second") >= handed["samples"]


@pytest.mark.heavy
def test_no_sample_is_lost_when_a_peer_leaves_amid_global_steps(start):
    swarm, (first, second) = start("first", "second")
    swarm.wait_for(lambda: len(swarm.steps("first")) >= 2, "two steps", alive=first)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(30) == 0
    (left,) = swarm.events("first", "left")
    handed = sum(event["samples"] for event in swarm.events("first", "handed_over"))
    reloaded = bool(swarm.events("first", "reloading"))
    assert reloaded or left["samples_contributed"] + handed == left["samples_computed"]
    before = swarm.steps("second")[-1]
    swarm.wait_for(lambda: swarm.steps("second")[-1] >= before + 2, "steps of the other", alive=second)


@pytest.mark.heavy
def test_the_last_peer_leaves_its_state_with_the_coordinator(start):
    swarm, (peer,) = start("peer", checkpoints={"every_steps": 5000, "follow_every_steps": 1000})
    swarm.wait_for(lambda: len(swarm.steps("peer")) >= 3, "three steps", alive=peer)
    peer.terminate()
    assert peer.wait(30) == 0
    reached = swarm.steps("peer")[-1]
    later = swarm.start_peer("later")
    swarm.wait_for(lambda: swarm.events("later", "synced"), "the next peer's state", alive=later)
    assert swarm.events("later", "synced")[0]["global_step"] == reached


@pytest.mark.heavy
def test_a_preemption_notice_is_obeyed_like_a_signal(start, tmp_path):
    notice = tmp_path / "notice"
    swarm, (peer,) = start("peer", options=("--preemption-notice", str(notice)))
    notice.write_text('{"action": "terminate"}')
    assert peer.wait(30) == 0
    assert swarm.events("peer", "left")[0]["reason"] == f"preemption notice at {notice}"


@pytest.mark.heavy
def test_the_grace_period_is_kept_and_a_second_signal_ends_at_once(start):
    """With a frozen coordinator nobody can copy the last peer's state, so it stays as long as it may."""
    swarm, (hasty,) = start("hasty")
    coordinator = swarm.processes[0]
    swarm.wait_for(lambda: swarm.steps("hasty"), "a step", alive=hasty)
    with frozen(coordinator):
        hasty.terminate()
        swarm.wait_for(lambda: swarm.events("hasty", "leaving"), "it to begin to leave")
        hasty.terminate()
        assert hasty.wait(5) == 128 + signal.SIGTERM
    patient = swarm.start_peer("patient", "--grace", "6")
    swarm.wait_for(lambda: swarm.steps("patient"), "a step", alive=patient)
    with frozen(coordinator):
        told = time.monotonic()
        patient.terminate()
        assert patient.wait(20) == 0
        assert 2 < time.monotonic() - told < 8


@contextlib.contextmanager
def frozen(process: subprocess.Popen[bytes]) -> Iterator[None]:
    signal_family(process, signal.SIGSTOP)
    try:
        yield
    finally:
        signal_family(process, signal.SIGCONT)


def peer_of(swarm, name: str) -> dict:
    found = [peer for peer in swarm.status().get("peers", []) if peer["name"] == name]
    return found[0] if found else {"samples_accumulated": 0, "handed_over": 0, "taken_over": 0}


def accumulated(swarm, name: str) -> int:
    return peer_of(swarm, name)["samples_accumulated"]
