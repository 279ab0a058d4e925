"""Coordinators that share a run, and one that continues it from nothing but checkpoints."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from swarm.identity import Identity
from tests.scenarios.swarm_under_test import LOOPBACK, ROOT, SwarmUnderTest, kill_group


@pytest.mark.heavy
def test_a_second_coordinator_carries_the_run_when_the_first_ones_machine_is_lost(
    make_swarm, make_spec, tmp_path
):
    swarm = make_swarm(make_spec())
    first = swarm.start_coordinator()
    peer = swarm.start_peer("peer")
    second_dir = make_swarm(swarm.spec_path, folder=tmp_path / "second")
    contact = address_in(swarm)
    second = second_dir.start_coordinator(
        "--initial-peers", contact, "--authority", str(swarm.run_dir / "identity.key")
    )
    assert fingerprint_in(second_dir) == fingerprint_in(swarm)
    assert contact in second_dir.join_line()
    swarm.wait_for(lambda: last_checkpoint(second_dir) >= 5, "a checkpoint of the second one", alive=second)

    kill_group(first)
    shutil.rmtree(swarm.run_dir)
    kill_group(peer)
    kept = second_dir.status()["global_step"]
    later = second_dir.start_peer("later")
    second_dir.wait_for(lambda: second_dir.steps("later"), "a step through the second one", alive=later)
    assert second_dir.events("later", "synced")[0]["global_step"] >= last_checkpoint(second_dir) >= 5
    assert second_dir.steps("later")[0] > kept - 5

    kill_group(second)
    port = second_dir.join_line().split("/tcp/")[1].split("/")[0]
    second_dir.start_coordinator(listen=("--host-maddrs", f"/ip4/127.0.0.1/tcp/{port}"))
    newest = last_checkpoint(second_dir)
    second_dir.wait_for(lambda: last_checkpoint(second_dir) > newest, "a checkpoint after its restart")


@pytest.mark.heavy
def test_a_run_goes_on_from_its_checkpoints_on_another_machine(make_swarm, make_spec, tmp_path):
    swarm = make_swarm(make_spec())
    coordinator = swarm.start_coordinator()
    peer = swarm.start_peer("peer")
    swarm.wait_for(lambda: last_checkpoint(swarm) >= 5, "a checkpoint", alive=peer)
    kill_group(peer)
    kill_group(coordinator)
    saved = tmp_path / "saved"
    shutil.copytree(swarm.run_dir / "checkpoints", saved, symlinks=True)
    shutil.rmtree(swarm.run_dir)
    kept = max(int(path.name.removeprefix("step-")) for path in saved.glob("step-*"))

    elsewhere = make_swarm(swarm.spec_path, folder=tmp_path / "elsewhere")
    elsewhere.start_coordinator("--resume-from", str(saved))
    later = elsewhere.start_peer("later")
    elsewhere.wait_for(lambda: elsewhere.steps("later"), "a step", alive=later)
    assert elsewhere.events("later", "synced")[0]["global_step"] == kept
    assert elsewhere.steps("later")[0] == kept + 1


@pytest.mark.heavy
def test_wrong_commissions_and_checkpoints_are_told_in_a_line(make_spec, tmp_path):
    spec = make_spec()
    empty = tmp_path / "empty"
    empty.mkdir()
    key = tmp_path / "identity.key"
    Identity.generate().save(key)
    no_key = tmp_path / "k.toml"
    no_key.write_text('name = "x"')
    cases = {
        f"--authority {no_key} holds no identity key": ("--authority", str(no_key)),
        "does not exist: copy identity.key": ("--authority", str(tmp_path / "none.key")),
        "--authority and --ticket need --initial-peers": ("--authority", str(key)),
        "is not a directory": ("--resume-from", str(tmp_path / "none")),
        "holds no checkpoint": ("--resume-from", str(empty)),
    }
    for words, options in cases.items():
        answer = run_coordinator(spec, tmp_path / "run", *options)
        assert answer.returncode == 2
        assert words in answer.stderr
        assert answer.stderr.count("\n") == 1


def run_coordinator(spec, run_dir, *options: str) -> subprocess.CompletedProcess[str]:
    code = "from coordinator.cli import main; main()"
    arguments = [
        "run",
        str(spec),
        "--run-dir",
        str(run_dir),
        *LOOPBACK,
        "--dashboard",
        "127.0.0.1:0",
        *options,
    ]
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def address_in(swarm: SwarmUnderTest) -> str:
    return next(word for word in swarm.join_line().split() if word.startswith("/ip4/"))


def fingerprint_in(swarm: SwarmUnderTest) -> str:
    return swarm.join_line().split()[-1]


def last_checkpoint(swarm: SwarmUnderTest) -> int:
    checkpoints = swarm.status().get("checkpoints") or [{"step": -1}]
    return checkpoints[-1]["step"]
