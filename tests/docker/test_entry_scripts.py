"""The images' scripts and the batch script, run as they would be in their places: no root, nothing to write to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.docker.command_lines import DOCKER, JOIN_LINE, parse
from tests.scenarios.line_process import ROOT
from tests.scenarios.swarm_under_test import LOOPBACK

DEADLINE_SECONDS = 60.0
NOBODY = 65534

# says how it was called; leaves when it is told to, as slowly as it is told to
FAKE_PEER = """#!/usr/bin/env bash
trap 'sleep "${FAKE_LEAVES_AFTER:-0}"; echo left; exit 0' USR1
printf '%s' "${ARTEL_TICKET:-}" > "$FAKE_LOG.ticket"
printf '%s\\n' "peer" "$@" > "$FAKE_LOG"
[[ -n ${FAKE_ENDS:-} ]] && exit "$FAKE_ENDS"
while :; do sleep 0.05; done
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """For everybody: pytest's own folders are closed to other users."""
    with tempfile.TemporaryDirectory(prefix="artel-scripts-") as name:
        Path(name).chmod(0o777)
        shutil.copytree(DOCKER, Path(name) / "docker")
        yield Path(name)


@pytest.fixture
def place(folder) -> Iterator[dict[str, str]]:
    """Environment with a `peer` that only notes how it was called; all that a script starts ends with the test."""
    for name, text in {
        "peer": FAKE_PEER,
        "scontrol": '#!/bin/sh\necho "$@" >> "$FAKE_LOG.scontrol"\n',
        "srun": '#!/usr/bin/env bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n',
        "apptainer": '#!/bin/sh\nwhile [ "$1" != peer ]; do shift; done\nexec "$@"\n',
    }.items():
        path = folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    # one that everybody may run; a developer's own may lie in a closed home
    (folder / "bin" / "python").symlink_to(shutil.which("python3", path="/usr/bin:/bin") or sys.executable)
    yield {
        "PATH": f"{folder}/bin:/usr/bin:/bin",
        "FAKE_LOG": str(folder / "called"),
        "ARTEL_PID_FILE": str(folder / "peer.pid"),
        "ARTEL_JOIN_FILE": str(folder / "join.txt"),
        "HOME": str(folder / "home"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if (folder / "peer.pid").exists():
        terminate(int((folder / "peer.pid").read_text()))


@pytest.fixture
def dashboard() -> Iterator[tuple[str, list[dict]]]:
    """A coordinator's page whose join line appears when the test puts it there."""
    answers: list[dict] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = self.path == "/api/status" and answers
            self.send_response(200 if found else 503)
            self.end_headers()
            self.wfile.write(json.dumps(answers[-1]).encode() if found else b"not yet")

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()


def start(script: str, *arguments: str, environment: dict[str, str]) -> subprocess.Popen[str]:
    """A script as somebody without rights, where that can be arranged, in a folder that cannot be written to."""
    drop = []
    if os.geteuid() == 0 and shutil.which("setpriv"):
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    return subprocess.Popen(
        [*drop, str(Path(environment["FAKE_LOG"]).parent / "docker" / script), *arguments],
        env=environment,
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, what: str):
    end = time.monotonic() + DEADLINE_SECONDS
    while not (answer := condition()):
        assert time.monotonic() < end, f"no {what}"
        time.sleep(0.05)
    return answer


def called(environment: dict[str, str]) -> list[str]:
    """How the fake peer was called; waits until it was."""
    path = Path(environment["FAKE_LOG"])
    wait_for(lambda: path.exists() and path.read_text(), "call of `peer`")
    return path.read_text().splitlines()


def terminate(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def test_the_join_line_of_the_page_is_waited_for_and_becomes_the_command(place, dashboard):
    address, answers = dashboard
    del place["ARTEL_JOIN_FILE"]
    process = start("artel-join.sh", "--grace", "25", environment={**place, "ARTEL_DASHBOARD": f"{address}/"})
    assert "waiting" in process.stderr.readline()
    assert not Path(place["FAKE_LOG"]).exists()
    answers.append({"join_line": ""})
    answers.append({"join_line": JOIN_LINE})
    assert called(place) == [*JOIN_LINE.split(), "--grace", "25"]
    assert parse(called(place))["grace"] == 25.0
    assert int(Path(place["ARTEL_PID_FILE"]).read_text()) == process.pid
    process.kill()


def test_the_doctor_looks_with_the_same_line_and_leaves_the_peer_alone(place):
    Path(place["ARTEL_JOIN_FILE"]).write_text(f"{JOIN_LINE}\n")
    process = start("artel-join.sh", "doctor", "--json", environment={**place, "FAKE_ENDS": "1"})
    assert called(place) == ["peer", "doctor", *JOIN_LINE.split()[2:], "--json"]
    assert parse(called(place))["json"] is True
    assert process.wait(DEADLINE_SECONDS) == 1
    # where the peer's own process id stands, for `artel-leave`
    assert not Path(place["ARTEL_PID_FILE"]).exists()


def test_leaving_waits_until_the_peer_has_left(place):
    Path(place["ARTEL_JOIN_FILE"]).write_text(f"{JOIN_LINE}\n")
    peer = start("artel-join.sh", environment={**place, "FAKE_LEAVES_AFTER": "1"})
    called(place)
    leaving = start("artel-leave.sh", "30", environment=place)
    assert peer.wait(DEADLINE_SECONDS) == 0
    assert "left" in peer.stdout.read()
    assert leaving.wait(DEADLINE_SECONDS) == 0


def test_leaving_does_not_wait_longer_than_it_may_nor_for_nobody(place):
    Path(place["ARTEL_JOIN_FILE"]).write_text(f"{JOIN_LINE}\n")
    peer = start("artel-join.sh", environment={**place, "FAKE_LEAVES_AFTER": "1000"})
    called(place)
    assert start("artel-leave.sh", "1", environment=place).wait(DEADLINE_SECONDS) == 0
    assert peer.poll() is None
    peer.kill()
    peer.wait()
    assert start("artel-leave.sh", "1000", environment=place).wait(DEADLINE_SECONDS) == 0
    Path(place["ARTEL_PID_FILE"]).unlink()
    assert start("artel-leave.sh", "1000", environment=place).wait(DEADLINE_SECONDS) == 0


@pytest.mark.parametrize(
    ("line", "variables", "code", "words"),
    [
        ("rm -rf something", {}, 1, "does not hold a `peer join` line"),
        ("", {"ARTEL_JOIN_WAIT": "0"}, 1, "is the coordinator up?"),
        (JOIN_LINE, {"ARTEL_JOIN_FILE": ""}, 2, "set ARTEL_DASHBOARD or ARTEL_JOIN_FILE"),
    ],
)
def test_what_is_no_join_line_is_told_and_not_run(place, line, variables, code, words):
    Path(place["ARTEL_JOIN_FILE"]).write_text(line)
    process = start("artel-join.sh", environment={**place, **variables})
    assert process.wait(DEADLINE_SECONDS) == code
    assert words in process.stderr.read()
    assert not Path(place["FAKE_LOG"]).exists()


def test_a_word_of_the_join_line_is_never_run_as_code(place, folder):
    Path(place["ARTEL_JOIN_FILE"]).write_text(f"peer join $(touch {folder}/owned) `touch {folder}/owned` *\n")
    process = start("artel-join.sh", environment=place)
    assert called(place)[2:5] == ["$(touch", f"{folder}/owned)", "`touch"]
    assert called(place)[-1] == "*"
    assert not (folder / "owned").exists()
    process.kill()


def test_the_batch_script_passes_slurms_signal_on_and_queues_the_job_again(place):
    Path(place["ARTEL_JOIN_FILE"]).write_text(f"{JOIN_LINE}\n")
    environment = {
        **place,
        "SLURM_JOB_ID": "77",
        "FAKE_LEAVES_AFTER": "1",
        "ARTEL_CACHE": f"{place['HOME']}-cache",
    }
    Path(place["HOME"]).parent.joinpath("home-cache").mkdir(mode=0o777)
    batch = start("slurm/node.sbatch", environment=environment)
    words = called(place)
    assert words[: len(JOIN_LINE.split())] == JOIN_LINE.split()
    warning = int(directives()["signal"].rpartition("@")[2])
    assert warning > parse(words)["grace"] + 10
    batch.send_signal(signal.SIGUSR1)
    batch.send_signal(signal.SIGTERM)
    batch.send_signal(signal.SIGUSR1)
    assert batch.wait(DEADLINE_SECONDS) == 0
    assert "left" in batch.stdout.read()
    assert Path(f"{place['FAKE_LOG']}.scontrol").read_text() == "requeue 77\n"


@pytest.mark.parametrize("script", ["artel-join.sh", "slurm/node.sbatch"])
def test_the_token_of_an_invitation_is_in_the_environment_and_not_in_the_command(place, script, folder):
    Path(place["ARTEL_JOIN_FILE"]).write_text(f"{JOIN_LINE}\n")
    own = {"ARTEL_TICKET": "secret", "FAKE_ENDS": "0", "ARTEL_CACHE": str(folder), "ARTEL_IMAGE": "artel.sif"}
    process = start(script, environment={**place, **own})
    assert process.wait(DEADLINE_SECONDS) == 0
    assert Path(f"{place['FAKE_LOG']}.ticket").read_text() == "secret"
    assert not any("secret" in word for word in called(place))


@pytest.mark.parametrize("code", [0, 1])
def test_a_peer_that_ends_by_itself_ends_the_job_with_its_code(place, code, folder):
    Path(place["ARTEL_JOIN_FILE"]).write_text(f"{JOIN_LINE}\n")
    environment = {
        **place,
        "SLURM_JOB_ID": "77",
        "FAKE_ENDS": str(code),
        "ARTEL_IMAGE": "artel.sif",
        "HOME": "/tmp",
    }
    environment["ARTEL_CACHE"] = str(folder)
    batch = start("slurm/node.sbatch", environment=environment)
    assert batch.wait(DEADLINE_SECONDS) == code
    assert called(place)[:2] == ["peer", "join"]
    assert not Path(f"{place['FAKE_LOG']}.scontrol").exists()


def directives() -> dict[str, str]:
    """#SBATCH lines of the batch script."""
    lines = (DOCKER / "slurm" / "node.sbatch").read_text().splitlines()
    found = [line.removeprefix("#SBATCH --").partition("=") for line in lines if line.startswith("#SBATCH")]
    return {name: value for name, _, value in found}


def test_the_batch_job_has_the_whole_node_and_may_be_queued_again():
    found = directives()
    assert found["gpus-per-node"] == "16"
    assert found["signal"].startswith("B:USR1@")
    assert {"requeue", "exclusive"} <= set(found)
    assert found["open-mode"] == "append"


def test_health_is_the_life_of_libp2ps_daemon(tmp_path, dashboard):
    """In a process namespace of its own, as in a container: other daemons on this machine do not count."""
    namespace = ["unshare", "--pid", "--fork", "--mount-proc"]
    if (
        os.geteuid() != 0
        or not shutil.which("unshare")
        or subprocess.run([*namespace, "true"], check=False).returncode
    ):
        pytest.skip("needs a process namespace: Linux and root")
    address, answers = dashboard
    daemon = tmp_path / "p2pd"
    shutil.copy(shutil.which("sleep"), daemon)

    def health(before: str, **variables: str) -> int:
        program = f"{before} {DOCKER / 'artel-health.sh'}"
        environment = {"PATH": os.environ["PATH"], **variables}
        return subprocess.run(
            [*namespace, "bash", "-c", program], env=environment, capture_output=True, timeout=60, check=False
        ).returncode

    alive = f"{daemon} 60 & until [[ $(< /proc/$!/comm) == p2pd ]]; do sleep 0.05; done;"
    assert health("") == 1
    assert health(alive) == 0
    assert health(alive, ARTEL_HEALTH_URL=f"{address}/api/status") == 1
    answers.append({})
    assert health(alive, ARTEL_HEALTH_URL=f"{address}/api/status") == 0


@pytest.mark.heavy
def test_a_real_peer_joins_leaves_and_is_examined_through_the_scripts(make_swarm, make_spec, tmp_path):
    """The coordinator is known by a name, as in compose and Kubernetes."""
    swarm = make_swarm(make_spec())
    swarm.start_coordinator(
        "--announce-maddrs", "/dns4/localhost/tcp/31997", listen=("--host-maddrs", "/ip4/127.0.0.1/tcp/31997")
    )
    assert "/dns4/localhost/tcp/31997/p2p/" in swarm.join_line()
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "peer"
    program.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'from peer.cli import main; main()' \"$@\"\n")
    program.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "ARTEL_DASHBOARD": (swarm.run_dir / "dashboard.txt").read_text().strip(),
        "ARTEL_PID_FILE": str(tmp_path / "peer.pid"),
        "ARTEL_TEST_SWARM": swarm.mark,
    }
    options = ["--cache-dir", str(tmp_path / "cache"), "--grace", "20", "--micro-batch-size", "4"]
    peer = subprocess.Popen(
        [DOCKER / "artel-join.sh", *options, *LOOPBACK], env=environment, stdout=subprocess.DEVNULL
    )
    swarm.wait_for(lambda: swarm.status().get("global_step", 0) >= 2, "two global steps", deadline=200)
    answer = subprocess.run(
        [DOCKER / "artel-join.sh", "doctor", *LOOPBACK, "--cache-dir", tmp_path / "cache", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    verdicts = {finding["check"]: finding["verdict"] for finding in json.loads(answer.stdout)["findings"]}
    assert verdicts["run"] == verdicts["clock"] == verdicts["reachability"] == "ok", answer.stdout
    subprocess.run([DOCKER / "artel-leave.sh", "30"], env=environment, timeout=60, check=True)
    assert peer.wait(30) == 0
