"""What a user does wrong, or the world does to them: one line that names cause and fix, an exit code, no traceback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from swarm.identity import Identity

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "examples" / "demo.toml"
PEER_ID = Identity.generate().peer_id


def run(package: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"from {package}.cli import main; main()", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,  # its imports alone take long where other scenarios train beside it
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )


def assert_fails(answer: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert answer.returncode == code, answer.stderr
    lines = answer.stderr.strip().splitlines()
    assert len(lines) == 1, answer.stderr
    assert lines[0].startswith("error: ")
    for word in words:
        assert word in lines[0]
    assert answer.stdout == ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_wrong_address():
    assert_fails(
        run("peer", "join", "--initial-peers", "otter"), 2, "'otter'", "/ip4/HOST/tcp/PORT/p2p/PEER_ID"
    )


@pytest.mark.heavy
def test_a_dead_address(tmp_path):
    address = f"/ip4/127.0.0.1/tcp/{free_port()}/p2p/{PEER_ID}"
    answer = run("peer", "join", "--initial-peers", address, "--cache-dir", str(tmp_path))
    assert_fails(answer, 1, address, "Connection refused", "check that the coordinator runs")


@pytest.mark.heavy
def test_something_else_on_the_port(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"/ip4/127.0.0.1/tcp/{server.getsockname()[1]}/p2p/{PEER_ID}"
        answer = run("peer", "join", "--initial-peers", address, "--cache-dir", str(tmp_path))
    assert_fails(answer, 1, "none of the given addresses answered as the peer")


def test_a_missing_option():
    assert_fails(run("peer", "join"), 2, "--initial-peers")


def test_a_device_that_is_not_there():
    answer = run(
        "peer", "join", "--initial-peers", f"/ip4/127.0.0.1/tcp/1/p2p/{PEER_ID}", "--device", "abacus"
    )
    assert_fails(answer, 2, "--device abacus")


def test_a_spec_with_a_typo(tmp_path):
    spec = tmp_path / "run.toml"
    spec.write_text(DEMO.read_text().replace("total_steps", "totl_steps"))
    answer = run("coordinator", "run", str(spec), "--run-dir", str(tmp_path / "run"))
    assert_fails(answer, 2, "training.totl_steps", "did you mean `total_steps`?")
    assert not (tmp_path / "run").exists()


@pytest.mark.heavy
def test_a_port_in_use(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        listen = f"/ip4/127.0.0.1/tcp/{port}"
        answer = run(
            "coordinator", "run", str(DEMO), "--run-dir", str(tmp_path / "run"), "--host-maddrs", listen
        )
    assert_fails(answer, 1, f"port {port}", "--host-maddrs")
    assert not (tmp_path / "run").exists()


@pytest.mark.heavy
def test_a_run_directory_that_cannot_be_one(tmp_path):
    (tmp_path / "run").write_text("I am a file")
    listen = ("--host-maddrs", "/ip4/127.0.0.1/tcp/0", "--dashboard", "127.0.0.1:0")
    options = ("--run-dir", str(tmp_path / "run"), *listen)
    assert_fails(run("coordinator", "run", str(DEMO), *options), 2, "--run-dir")
    assert (tmp_path / "run").read_text() == "I am a file"


def test_the_status_of_nothing(tmp_path):
    assert_fails(run("coordinator", "status", "--run-dir", str(tmp_path / "none")), 2, "does not exist")


@pytest.mark.heavy
def test_a_second_coordinator_and_a_changed_bundle(make_swarm, make_spec, tmp_path):
    swarm = make_swarm(make_spec())
    first = swarm.start_coordinator()
    options = ("--host-maddrs", "/ip4/127.0.0.1/tcp/0", "--dashboard", "127.0.0.1:0")
    again = run("coordinator", "run", str(swarm.spec_path), "--run-dir", str(swarm.run_dir), *options)
    assert_fails(again, 1, "another coordinator already runs")

    shard = next((swarm.run_dir / "bundle" / "shards").glob("*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    words = swarm.join_line().split()
    cache = tmp_path / "another-cache"
    joined = run("peer", *words[1:], "--cache-dir", str(cache))
    assert_fails(joined, 1, shard.name, "does not match its signed digest")
    assert not list(cache.glob("bundles/*"))

    first.terminate()
    first.wait(30)
    restarted = run("coordinator", "run", str(swarm.spec_path), "--run-dir", str(swarm.run_dir), *options)
    assert_fails(restarted, 1, shard.name, "restore it, or delete")


@pytest.mark.heavy
def test_a_run_of_another_fingerprint_is_not_joined(make_swarm, make_spec, tmp_path):
    swarm = make_swarm(make_spec())
    swarm.start_coordinator()
    words = swarm.join_line().split()
    words[-1] = "0" * 64
    answer = run("peer", *words[1:], "--cache-dir", str(tmp_path / "another-cache"))
    assert_fails(answer, 2, "as --run says")
