"""The whole way with real processes: join, train, come late, be killed, restart."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.scenarios.swarm_under_test import family, kill_group, kill_main

# 2 s on a machine that is not shared with other tests
ORPHAN_SECONDS = 5.0


@pytest.fixture
def swarm(make_swarm, make_spec):
    swarm = make_swarm(make_spec())
    swarm.start_coordinator()
    return swarm


def test_two_peers_train_a_third_joins_late_and_a_killed_one_stops_nobody(swarm):
    """The third one is in client mode: nobody can reach it, yet it takes part like the others."""
    first, second = swarm.start_peer("first"), swarm.start_peer("second")
    swarm.wait_for(lambda: together(swarm, "first", 2), "a global step of two peers", alive=first)

    swarm.wait_for(lambda: swarm.steps("first")[-1] >= 5, "step 5", alive=first)
    third = swarm.start_peer("third", "--client-mode")
    swarm.wait_for(lambda: swarm.events("third", "synced"), "the third peer's state", alive=third)
    synced = swarm.events("third", "synced")[0]
    assert synced["global_step"] >= 5
    assert synced["donor"] is not None
    swarm.wait_for(lambda: together(swarm, "third", 3), "a global step of three peers", alive=third)

    orphans = family(second.pid)[1:]
    assert orphans
    kill_main(second)
    swarm.wait_for(
        lambda: not any(alive(pid) for pid in orphans), "its children to die", deadline=ORPHAN_SECONDS
    )
    before = swarm.steps("first")[-1]
    swarm.wait_for(
        lambda: swarm.steps("first")[-1] >= before + 3 and together(swarm, "first", 2, after=before),
        "steps without the killed peer",
        alive=first,
    )
    swarm.wait_for(lambda: state_of(swarm, "second") == "lost", "the killed peer to be shown as lost")
    assert swarm.status()["peers_online"] == 2


@pytest.mark.heavy
def test_the_run_goes_on_after_the_coordinator_is_killed_and_restarted(swarm, make_spec):
    coordinator = swarm.processes[0]
    peer = swarm.start_peer("peer")
    swarm.wait_for(lambda: last_checkpoint(swarm) >= 10, "a checkpoint at step 10", alive=peer)
    identity = (swarm.run_dir / "identity.key").read_bytes()
    kill_group(coordinator)
    newest, before = last_checkpoint(swarm), swarm.steps("peer")[-1]
    swarm.wait_for(lambda: swarm.steps("peer")[-1] >= before + 2, "steps without a coordinator", alive=peer)

    port = swarm.join_line().split("/tcp/")[1].split("/")[0]
    swarm.start_coordinator(listen=("--host-maddrs", f"/ip4/127.0.0.1/tcp/{port}"))
    assert (swarm.run_dir / "identity.key").read_bytes() == identity
    swarm.wait_for(lambda: last_checkpoint(swarm) > newest, "a checkpoint after the restart", alive=peer)
    assert last_checkpoint(swarm) >= before


@pytest.mark.heavy
def test_when_everybody_is_gone_the_next_peer_continues_from_the_last_state(swarm):
    peer = swarm.start_peer("peer")
    swarm.wait_for(lambda: last_checkpoint(swarm) >= 5, "a checkpoint", alive=peer)
    kill_group(peer)
    swarm.wait_for(lambda: swarm.status()["state"] == "waiting", "the coordinator to notice")
    kept = swarm.status()["checkpoints"][-1]["step"]
    later = swarm.start_peer("later")
    swarm.wait_for(lambda: swarm.steps("later"), "a step of the next peer", alive=later)
    assert swarm.events("later", "synced")[0]["global_step"] >= kept
    assert swarm.steps("later")[0] > kept


@pytest.mark.heavy
def test_a_peer_leaves_when_told_to_and_says_what_it_gave(swarm):
    peer = swarm.start_peer("peer")
    swarm.wait_for(lambda: len(swarm.steps("peer")) >= 2, "two steps", alive=peer)
    peer.send_signal(signal.SIGTERM)
    assert peer.wait(15) == 0
    left = swarm.events("peer", "left")[0]
    assert left["samples_contributed"] == sum(event["samples"] for event in swarm.events("peer", "step"))
    swarm.wait_for(lambda: swarm.status()["peers_online"] == 0, "the coordinator to notice")


@pytest.mark.heavy
def test_a_run_that_is_finished_ends_by_itself(make_swarm, make_spec):
    swarm = make_swarm(make_spec(training={"total_steps": 6}))
    coordinator = swarm.start_coordinator("--exit-when-finished")
    peers = [swarm.start_peer("first"), swarm.start_peer("second")]
    for process in (*peers, coordinator):
        assert process.wait(90) == 0
    status = swarm.status()
    assert (status["state"], status["global_step"]) == ("finished", 6)
    assert status["checkpoints"][-1]["step"] == 6
    assert status["checkpoints"][-1]["heldout_loss"] < status["checkpoints"][0]["heldout_loss"]


@pytest.mark.heavy
def test_the_last_checkpoint_loads_where_this_project_is_not_installed(make_swarm, make_spec, tmp_path):
    swarm = make_swarm(make_spec(training={"total_steps": 5}))
    coordinator = swarm.start_coordinator("--exit-when-finished")
    swarm.start_peer("peer")
    assert coordinator.wait(90) == 0
    latest = swarm.run_dir / "checkpoints" / "latest"
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(latest, elsewhere / "model", symlinks=False)
    program = (
        "import json, torch; from transformers import AutoModelForMaskedLM, AutoTokenizer\n"
        "model = AutoModelForMaskedLM.from_pretrained('model', trust_remote_code=True)\n"
        "tokenizer = AutoTokenizer.from_pretrained('model', trust_remote_code=True)\n"
        "inputs = tokenizer('Кошка быстро [MASK] птица.', return_tensors='pt')\n"
        "print(json.dumps(list(model(**inputs).logits.shape)))\n"
    )
    environment = {"HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    answer = subprocess.run(
        [sys.executable, "-P", "-c", program]
        if sys.version_info >= (3, 11)
        else [sys.executable, "-c", program],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    batch, length, vocabulary = json.loads(answer.stdout.strip().splitlines()[-1])
    assert (batch, vocabulary) == (1, json.loads((latest / "config.json").read_text())["vocab_size"])
    assert length > 4


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def together(swarm, name: str, group: int, after: int = 0) -> bool:
    return any(
        event["group"] == group and event["global_step"] > after for event in swarm.events(name, "step")
    )


def last_checkpoint(swarm) -> int:
    checkpoints = swarm.status().get("checkpoints") or [{"step": -1}]
    return checkpoints[-1]["step"]


def state_of(swarm, name: str) -> str:
    return next((peer["state"] for peer in swarm.status()["peers"] if peer["name"] == name), "unknown")
