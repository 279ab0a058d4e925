"""The control API over a real port with a real swarm: settings, pause and finish reach everybody at one global step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from coordinator import control_pb2, control_pb2_grpc
from tests.scenarios.swarm_under_test import ROOT, family

LARGER_BATCH = 384
MAIN = "from coordinator.cli import main; main()"
# `coordinator` with another child for checkpoints: the module `ends_at_once` in the folder of its first argument
WITHOUT_CHILD = """
import sys; sys.path.insert(0, sys.argv.pop(1))
from coordinator import checkpoint_worker; checkpoint_worker.CHILD = "ends_at_once"
from coordinator.cli import main; main()
"""

# with a tracker that fails at its third look
TRACKER_FAILS = """
from coordinator import tracker_thread
from coordinator.cli import main
from coordinator.tracker import Tracker

looks, poll = [], Tracker.poll

def failing(tracker):
    looks.append(None)
    if len(looks) > 2:
        raise RuntimeError("no such peer")
    return poll(tracker)

Tracker.poll = failing
tracker_thread.PATIENCE_SECONDS = 2.0
main()
"""
LISTEN = ["--host-maddrs", "/ip4/127.0.0.1/tcp/0", "--dashboard", "127.0.0.1:0"]


def coordinator(
    *arguments: str, main: str = MAIN, timeout: float = 100, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", main, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        check=False,
    )


def answer(swarm, *arguments: str) -> dict:
    """What a sub-command prints as JSON for the run of this swarm."""
    done = coordinator(*arguments, "--run-dir", str(swarm.run_dir), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def taken_over(swarm, name: str, **wanted: object) -> list[int]:
    """The global steps at which a peer began to follow settings with these values."""
    return [
        event["global_step"]
        for event in swarm.events(name, "settings")
        if all(event[key] == value for key, value in wanted.items())
    ]


@pytest.mark.heavy
def test_a_run_is_watched_changed_paused_resumed_and_finished(make_swarm, make_spec):
    swarm = make_swarm(make_spec())
    process = swarm.start_coordinator("--exit-when-finished")
    first, second = swarm.start_peer("first"), swarm.start_peer("second")
    swarm.wait_for(lambda: len(swarm.steps("second")) >= 2, "steps of both", alive=second)
    address = (swarm.run_dir / "control.txt").read_text().strip()
    token = (swarm.run_dir / "control.token").read_text().strip()
    assert (swarm.run_dir / "control.token").stat().st_mode & 0o777 == 0o600

    with grpc.insecure_channel(address) as channel:
        api = control_pb2_grpc.ControlStub(channel)
        check_reading(channel, api, token)
        check_refusals(api, token)

    change = answer(swarm, "set", f"target_batch_size={LARGER_BATCH}", "learning_rate_scale=0.5")
    assert change["version"] == 1
    from_step = change["from_step"]
    for name in ("first", "second"):
        swarm.wait_for(
            lambda name=name: swarm.steps(name)[-1] > from_step, f"the change at {name}", alive=first
        )
        assert taken_over(swarm, name, target_batch_size=LARGER_BATCH) == [from_step]
        larger = [event for event in swarm.events(name, "step") if event["global_step"] > from_step]
        assert min(event["swarm_samples"] for event in larger) >= LARGER_BATCH

    paused_at = answer(swarm, "pause")["from_step"]
    swarm.wait_for(
        lambda: all(taken_over(swarm, name, paused=True) for name in ("first", "second")),
        "the pause",
        alive=first,
    )
    swarm.wait_for(lambda: swarm.status()["paused"], "the pause to be shown")
    steps_made = len(swarm.steps("first"))
    made = answer(swarm, "checkpoint")
    assert made["step"] == paused_at
    assert [item["step"] for item in answer(swarm, "checkpoints")["checkpoints"]][-1] == paused_at
    assert len(swarm.steps("first")) == steps_made, "a paused peer made a step"
    again = coordinator("pause", "--run-dir", str(swarm.run_dir))
    assert (again.returncode, again.stderr) == (1, "error: the run is paused already, or about to be\n")

    assert answer(swarm, "resume")["from_step"] == paused_at
    swarm.wait_for(lambda: swarm.steps("first")[-1] > paused_at, "steps after the pause", alive=first)
    end = answer(swarm, "finish")["from_step"]
    for each in (first, second, process):
        assert each.wait(90) == 0
    status = swarm.status()
    assert (status["state"], status["global_step"], status["checkpoints"][-1]["step"]) == (
        "finished",
        end,
        end,
    )
    kinds = [event["kind"] for event in events_of(swarm)]
    for kind in ("settings", "paused", "resumed", "finishing"):
        assert kind in kinds


@pytest.mark.heavy
def test_a_checkpoint_that_hangs_stops_neither_tracker_nor_head(make_swarm, make_spec):
    swarm = make_swarm(make_spec(checkpoints={"timeout": 8.0}))
    process = swarm.start_coordinator()
    peer = swarm.start_peer("peer")
    swarm.wait_for(lambda: len(swarm.steps("peer")) >= 2, "two steps", alive=peer, deadline=240)
    # a child that is still starting has more time
    swarm.wait_for(lambda: swarm.status()["checkpoints"], "the first checkpoint", alive=peer, deadline=240)
    child = child_for_checkpoints(process.pid)
    os.kill(child, signal.SIGSTOP)
    told = coordinator("checkpoint", "--run-dir", str(swarm.run_dir), "--wait", "1")
    assert (told.returncode, "did not answer in time" in told.stderr) == (1, True)
    shown = swarm.status()
    swarm.wait_for(lambda: swarm.status()["generated_at"] > shown["generated_at"] + 3, "the tracker to go on")
    swarm.wait_for(lambda: swarm.status()["global_step"] > shown["global_step"], "steps meanwhile")
    failures = {"checkpoint_failed", "state_not_judged"}
    swarm.wait_for(lambda: failures & {event["kind"] for event in events_of(swarm)}, "the event of its end")
    assert not Path(f"/proc/{child}").exists()
    said = next(event["sentence"] for event in events_of(swarm) if event["kind"] in failures)
    assert "not done within 8 s (checkpoints.timeout), so its process was killed" in said
    swarm.wait_for(
        lambda: swarm.status()["checkpoints"][-1]["step"] > shown["global_step"], "a checkpoint after that"
    )


@pytest.mark.heavy
def test_a_coordinator_whose_checkpoint_process_does_not_start_says_so_in_a_line(make_swarm, make_spec):
    """What fails while it begins must not leave threads behind that read a closing DHT."""
    swarm = make_swarm(make_spec())
    (swarm.folder / "ends_at_once.py").write_text("def main():\n    raise SystemExit(3)\n")
    arguments = [str(swarm.folder), "run", str(swarm.spec_path), "--run-dir", str(swarm.run_dir)]
    answer = coordinator(*arguments, *LISTEN, main=WITHOUT_CHILD, timeout=240)
    assert answer.returncode == 1, answer.stderr
    assert answer.stderr.startswith("error: the process for checkpoints did not start"), answer.stderr
    assert answer.stderr.count("\n") == 1, answer.stderr


@pytest.mark.heavy
def test_a_coordinator_whose_tracker_fails_for_good_ends_and_says_so_in_a_line(make_swarm, make_spec):
    """A page that stands still must not look like a run."""
    swarm = make_swarm(make_spec())
    arguments = ["run", str(swarm.spec_path), "--run-dir", str(swarm.run_dir)]
    answer = coordinator(*arguments, *LISTEN, main=TRACKER_FAILS, timeout=240)
    assert answer.returncode == 1, answer.stderr
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("error: the tracker has failed (no such peer): start the coordinator again"), last
    assert "Traceback" not in answer.stderr
    assert swarm.status()["global_step"] == 0


def child_for_checkpoints(pid: int) -> int:
    commands = {each: Path(f"/proc/{each}/cmdline").read_text() for each in family(pid)}
    return next(each for each, command in commands.items() if "checkpoint_process" in command)


def check_reading(channel: grpc.Channel, api: control_pb2_grpc.ControlStub, token: str) -> None:
    health = health_pb2_grpc.HealthStub(channel).Check(
        health_pb2.HealthCheckRequest(service="artel.control.v1.Control"), timeout=10
    )
    assert health.status == health_pb2.HealthCheckResponse.SERVING
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    told = next(
        reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([asked]), timeout=10, metadata=[("authorization", f"Bearer {token}")]
        )
    )
    assert "artel.control.v1.Control" in {each.name for each in told.list_services_response.service}

    run = api.GetRun(control_pb2.GetRunRequest(), timeout=10)
    assert run.state == "training"
    assert {peer.name for peer in run.peers} == {"first", "second"}
    assert run.join_line.startswith("peer join ")
    training = api.ListPeers(control_pb2.ListPeersRequest(states=["lost"]), timeout=10)
    assert not training.peers
    one = api.GetPeer(control_pb2.GetPeerRequest(peer="first"), timeout=10)
    assert one.name == "first"
    stream = api.Watch(control_pb2.WatchRequest(period=0.5), timeout=30)
    shown = [next(stream).generated_at for _ in range(3)]
    assert shown == sorted(set(shown))
    stream.cancel()


def check_refusals(api: control_pb2_grpc.ControlStub, token: str) -> None:
    owner = [("authorization", f"Bearer {token}")]
    cases = [
        (api.Pause, control_pb2.PauseRequest(), [], grpc.StatusCode.UNAUTHENTICATED),
        (
            api.Finish,
            control_pb2.FinishRequest(),
            [("authorization", "Bearer x")],
            grpc.StatusCode.UNAUTHENTICATED,
        ),
        (api.MakeCheckpoint, control_pb2.MakeCheckpointRequest(), [], grpc.StatusCode.UNAUTHENTICATED),
        (api.Resume, control_pb2.ResumeRequest(), owner, grpc.StatusCode.FAILED_PRECONDITION),
        (api.ChangeSettings, control_pb2.ChangeSettingsRequest(), owner, grpc.StatusCode.INVALID_ARGUMENT),
        (
            api.ChangeSettings,
            control_pb2.ChangeSettingsRequest(target_batch_size=0),
            owner,
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (
            api.ChangeSettings,
            control_pb2.ChangeSettingsRequest(total_steps=1),
            owner,
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (api.GetPeer, control_pb2.GetPeerRequest(peer="nobody"), [], grpc.StatusCode.NOT_FOUND),
        (
            api.ListPeers,
            control_pb2.ListPeersRequest(states=["asleep"]),
            [],
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
    ]
    for method, request, metadata, code in cases:
        with pytest.raises(grpc.RpcError) as refused:
            method(request, metadata=metadata, timeout=10)
        assert refused.value.code() is code, refused.value
        assert refused.value.details()


def events_of(swarm) -> list[dict]:
    from coordinator.history_reader import HistoryReader

    return HistoryReader(swarm.run_dir / "history.sqlite").events(limit=500)
