"""`peer doctor` against real sockets, limits and participants: what is wrong is said in words, with the remedy."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from coordinator.admission_desk import AdmissionDesk
from peer.doctor import examine
from peer.doctor_finding import Finding, Verdict
from peer.doctor_machine import (
    check_cache,
    check_device,
    check_memory,
    check_open_files,
    check_shared_memory,
    gpus_of_the_driver,
)
from peer.doctor_network import (
    NetworkOptions,
    examine_network,
    judge_addresses,
    judge_clock,
    judge_port,
    judge_speed,
)
from peer.doctor_packages import check_codec, judge
from swarm.addresses import Address, parse_address
from swarm.admission import Admission
from swarm.bundle import pack_bundle
from swarm.dht import open_dht
from swarm.first_contact import ClockReading, Speed, first_contact
from swarm.identity import Identity
from swarm.probe import MAX_UPLOAD_BYTES, PortAnswer, ProbeServer
from swarm.service import ServiceThread
from swarm.spec import RunSpec
from swarm.transfer import BundleServer

ROOT = Path(__file__).parents[2]
LISTEN = ("/ip4/127.0.0.1/tcp/0",)
UNREACHABLE = f"/ip4/127.0.0.1/tcp/9/p2p/{Identity.generate().peer_id}"


@dataclass(frozen=True)
class Participant:
    """`invite` gives out an invitation, where the run needs one."""

    address: Address
    fingerprint: str
    invite: Callable[[], str]


@contextmanager
def participant(folder: Path, *, probes: bool, by_invitation: bool = False) -> Iterator[Participant]:
    """A real node that serves a run bundle, and tickets if the run is by invitation."""
    (folder / "bundle").mkdir()
    (folder / "bundle" / "heldout.safetensors").write_bytes(os.urandom(2**20))
    identity = Identity.load_or_create(folder / "identity.key")
    spec = RunSpec(name="served", admission="invite" if by_invitation else "open")
    signed = pack_bundle(folder / "bundle", spec, identity)
    admission = Admission(spec.run_id, [identity.peer_id], by_invitation=by_invitation)
    run = SimpleNamespace(identity=identity, run_id=spec.run_id, admission=admission)
    desk = AdmissionDesk(run, folder / "books.json", lambda event: None, "", by_invitation=by_invitation)
    dht = open_dht(identity_path=folder / "identity.key", admission=admission)
    service = ServiceThread(dht)
    BundleServer(folder / "bundle", admission).start(service)
    desk.open(service)
    if probes:
        ProbeServer().start(service)
    address = parse_address(str(dht.get_visible_maddrs()[0]))
    yield Participant(address, signed.fingerprint, lambda: desk.invite("anna", "peer", 3600.0, 1))
    service.stop()
    dht.shutdown()


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Participant]:
    with participant(tmp_path_factory.mktemp("served"), probes=True) as served:
        yield served


@pytest.fixture(autouse=True)
def short_measurements_long_patience(monkeypatch) -> Iterator[None]:
    """Of this process only: seconds of transfers at full speed would be spent in every test."""
    monkeypatch.setattr("swarm.probe.CONNECT_SECONDS", 60.0)
    monkeypatch.setattr("swarm.first_contact.CALL_SECONDS", 100.0)
    monkeypatch.setattr("swarm.first_contact.MEASURE_SECONDS", 0.3)
    monkeypatch.setattr("swarm.probe.UPLOAD_SECONDS", 0.1)
    yield
    # what hivemind leaves of a closed loop complains when it is collected: here, and not in the middle of anything
    gc.collect()


def doctor(*arguments: str, environment: dict[str, str] | None = None, open_files: int | None = None):
    """Run `peer doctor` as a user would."""
    return peer_command("doctor", *arguments, environment=environment, open_files=open_files)


def peer_command(
    *arguments: str, environment: dict[str, str] | None = None, open_files: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `peer` as a user would."""

    def limit() -> None:
        if open_files is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (open_files, open_files))

    return subprocess.run(
        [sys.executable, "-c", "from peer.cli import main; main()", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        preexec_fn=limit,
        check=False,
    )


def by_check(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.check: finding for finding in findings}


@pytest.mark.heavy
def test_everything_that_is_wrong_is_found_at_once_and_named_with_its_remedy(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'Tesla V100-SXM3-32GB, 535.183.01, 7.0'\n")
    smi.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as occupied:
        port = occupied.getsockname()[1]
        answer = doctor(
            *("--json", "--host-maddrs", f"/ip4/127.0.0.1/tcp/{port}", "--initial-peers", UNREACHABLE),
            *("--cache-dir", str(tmp_path / "file" / "cache")),
            environment={"PATH": f"{tmp_path}:{os.environ['PATH']}", "CUDA_VISIBLE_DEVICES": ""},
            open_files=256,
        )
    assert answer.returncode == 1, answer.stderr
    assert "Traceback" not in answer.stdout + answer.stderr
    report = json.loads(answer.stdout)
    found: dict[str, dict[str, Any]] = {finding["check"]: finding for finding in report["findings"]}
    assert report["ok"] is False
    failed = {check for check, finding in found.items() if finding["verdict"] == "fail"}
    assert {"listening", "open files", "cache folder", "first contact"} <= failed
    assert str(port) in found["listening"]["words"]
    assert "--host-maddrs" in found["listening"]["fix"]
    assert "256" in found["open files"]["words"]
    assert "--cache-dir" in found["cache folder"]["fix"]
    assert "refused" in found["first contact"]["words"]
    assert found["device"]["verdict"] == "warn"
    assert "V100" in found["device"]["words"]
    assert "12.6" in found["device"]["fix"]
    assert all(finding["fix"] for finding in report["findings"] if finding["verdict"] != "ok")


@pytest.mark.heavy
def test_a_machine_that_may_join_is_told_so_after_real_exchanges(served, tmp_path):
    line = ("--initial-peers", served.address.text, "--run", served.fingerprint)
    answer = doctor(*line, "--host-maddrs", LISTEN[0], "--cache-dir", str(tmp_path), "--device", "cpu")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "FAIL" not in answer.stdout
    assert "serves served-" in answer.stdout
    assert "has connected to 127.0.0.1 port" in answer.stdout
    for direction in ("download", "upload"):
        assert any(line.split()[1] == f"{direction}:" for line in answer.stdout.splitlines()), answer.stdout
    assert not list(tmp_path.glob(".artel-doctor-*"))


def test_a_contact_of_another_run_is_told_apart(served):
    findings = by_check(examine_network(NetworkOptions([served.address], "0" * 64, LISTEN)))
    assert findings["run"].verdict is Verdict.FAIL
    assert "`peer join` line" in findings["run"].fix


def test_a_port_that_is_not_open_to_others_is_said_to_be_closed(served):
    """What we announce is where the contact tries: nobody listens there."""
    network = NetworkOptions([served.address], served.fingerprint, LISTEN, ["/ip4/127.0.0.1/tcp/9"])
    findings = by_check(examine_network(network))
    assert findings["reachability"].verdict is Verdict.WARN
    assert "--client-mode" in findings["reachability"].fix
    assert "tcp/9" in findings["announced addresses"].words


def test_in_client_mode_nobody_needs_to_reach_us(served):
    network = NetworkOptions([served.address], served.fingerprint, LISTEN, client_mode=True)
    findings = by_check(examine_network(network))
    assert "reachability" not in findings
    assert findings["run"].verdict is Verdict.OK
    assert abs(float(findings["clock"].words.split()[0])) < 5


def test_a_run_by_invitation_is_looked_at_as_far_as_a_stranger_may_and_with_a_ticket_wholly(tmp_path):
    (tmp_path / "run").mkdir()
    with participant(tmp_path / "run", probes=True, by_invitation=True) as run:
        line = NetworkOptions([run.address], run.fingerprint, LISTEN, cache_dir=tmp_path / "cache")
        stranger = by_check(examine_network(line))
        assert stranger["run"].verdict is Verdict.FAIL
        assert stranger["run"].words == "this run is by invitation"
        assert "--ticket" in stranger["run"].fix
        assert stranger["reachability"].verdict is Verdict.OK
        assert {"clock", "upload"} <= set(stranger)
        assert "download" not in stranger

        invited = replace(line, invitation=run.invite())
        # the second time this machine shows what it was given the first time
        for options in (invited, line, invited):
            found = by_check(examine_network(options))
            assert found["run"].verdict is Verdict.OK, found["run"]
            assert "lets us in as 'anna'" in found["run"].words
            assert "Mbit/s" in found["download"].words

        another = replace(invited, cache_dir=tmp_path / "another machine's cache")
        refused = by_check(examine_network(another))["run"]
        assert refused.verdict is Verdict.FAIL
        assert "has been used" in f"{refused.words} {refused.fix}"


def test_a_line_too_slow_for_the_time_of_a_measurement_is_measured_all_the_same(served, monkeypatch):
    monkeypatch.setattr("swarm.first_contact.MEASURE_SECONDS", 0.0)
    findings = by_check(examine_network(NetworkOptions([served.address], served.fingerprint, LISTEN)))
    assert "Mbit/s" in findings["download"].words


def test_what_a_contact_of_another_version_does_not_answer_is_not_guessed(tmp_path):
    with participant(tmp_path, probes=False) as old:
        findings = by_check(examine_network(NetworkOptions([old.address], old.fingerprint, LISTEN)))
    assert findings["download"].verdict is Verdict.OK
    for check in ("upload", "reachability"):
        assert findings[check].verdict is Verdict.WARN
        assert "another version" in findings[check].words


def test_somebody_who_is_no_participant_is_one_finding():
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        address = f"/ip4/127.0.0.1/tcp/{stranger.getsockname()[1]}/p2p/{Identity.generate().peer_id}"
        stranger.close()
        findings = by_check(examine_network(NetworkOptions([parse_address(address)])))
    assert findings["first contact"].verdict is Verdict.FAIL


def test_nobody_can_make_a_participant_take_more_than_a_measurement_needs(served):
    from swarm.probe import UPLOAD_HANDLER
    from swarm.service import NoAnswer, call_collect_handler

    async def flood() -> None:
        async with first_contact([served.address], LISTEN) as contact:
            chunk = bytes(2**20)
            messages = (chunk for _ in range(MAX_UPLOAD_BYTES // len(chunk) + 8))
            await call_collect_handler(contact._p2p, served.address.peer_id, UPLOAD_HANDLER, messages)

    with pytest.raises(NoAnswer):
        asyncio.run(flood())


def test_without_an_address_it_says_what_it_has_not_looked_at():
    findings = by_check(examine_network(NetworkOptions()))
    assert findings["first contact"].verdict is Verdict.WARN
    assert "--initial-peers" in findings["first contact"].fix


def test_shared_memory_and_cache_must_be_writable(tmp_path):
    assert check_shared_memory(tmp_path / "missing").verdict is Verdict.FAIL
    assert check_shared_memory(tmp_path).verdict is not Verdict.FAIL
    assert check_cache(Path("/proc/nothing-can-be-made-here")).verdict is Verdict.FAIL
    assert check_cache(tmp_path / "new").verdict is not Verdict.FAIL


def test_little_room_is_a_warning_and_none_a_failure(monkeypatch, tmp_path):
    def disk(free: int) -> None:
        usage = shutil._ntuple_diskusage(2**36, 2**36 - free, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda _folder: usage)

    for check, none, little in (
        (
            check_shared_memory,
            2**20,
            2**29,
        ),  # Docker's 64 MiB, of which most is taken; half of what is enough
        (check_cache, 2**20, 2**30),
    ):
        for free, verdict in ((none, Verdict.FAIL), (little, Verdict.WARN), (2**35, Verdict.OK)):
            disk(free)
            found = check(tmp_path)
            assert found.verdict is verdict, found
            assert bool(found.fix) == (verdict is not Verdict.OK)
    monkeypatch.setattr("peer.doctor_machine.available_memory", lambda _device: 2**29)
    assert check_memory().verdict is Verdict.FAIL


@pytest.mark.heavy
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="mounts need root")
def test_a_really_full_disk_is_a_finding_and_leaves_nothing(tmp_path):
    """A file system of 1 MiB less than the check writes, in a mount namespace of its own."""
    program = "from pathlib import Path; from peer.doctor_machine import *; import sys; p = Path(sys.argv[1])"
    program += "; print(check_cache(p).words, '|', check_shared_memory(p).words, '|', *p.iterdir())"
    mount = f'mount -t tmpfs -o size=512k none {tmp_path} && exec {sys.executable} -c "$0" {tmp_path}'
    answer = subprocess.run(
        ["unshare", "--mount", "bash", "-c", mount, program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    if "mount" in answer.stderr:
        pytest.skip("no mount namespaces here")
    cache, shared, left = answer.stdout.split("|")
    assert "No space left on device" in cache
    assert "No space left on device" in shared
    assert not left.strip()


def test_limits_of_open_files_are_judged_by_what_a_peer_may_raise_them_to(monkeypatch):
    for limits, verdict in (
        ((256, 32768), Verdict.OK),
        ((256, 1024), Verdict.WARN),
        ((200, 300), Verdict.FAIL),
        ((1024, resource.RLIM_INFINITY), Verdict.OK),
    ):
        monkeypatch.setattr(resource, "getrlimit", lambda _which, limits=limits: limits)
        assert check_open_files().verdict is verdict, limits


def test_packages_are_compared_with_what_artel_asks_for():
    wanted = ["numpy<2.4", "torch>=2.6", 'tomli>=2; python_version < "3"', 'ruff; extra == "dev"']
    there = {"numpy": "2.4.1", "torch": "2.13.0+cpu"}
    found = judge(wanted, there.get)
    assert found.verdict is Verdict.FAIL
    assert found.words == "numpy 2.4.1 is not <2.4"
    assert judge(wanted, {**there, "numpy": "2.3.5"}.get).verdict is Verdict.OK
    assert "torch is missing" in judge(wanted, {"numpy": "2.3.5"}.get).words


def test_the_codec_is_tried_and_a_broken_one_is_a_failure(monkeypatch):
    assert check_codec().verdict is Verdict.OK

    def extract(*_arguments):
        raise TypeError("numba needs another numpy")

    monkeypatch.setattr("swarm.codecs.Uniform8Bit.extract", extract)
    assert check_codec().verdict is Verdict.FAIL
    assert "numpy<2.4" in check_codec().fix


@pytest.mark.parametrize(
    ("offset", "verdict"),
    [(0.01, Verdict.OK), (-0.9, Verdict.WARN), (4.0, Verdict.FAIL), (-4.0, Verdict.FAIL)],
)
def test_clocks_are_judged_beyond_what_the_round_trip_hides(offset, verdict):
    assert judge_clock(ClockReading(offset, 0.05, 0.1)).verdict is verdict
    assert judge_clock(ClockReading(offset, 10.0, 20.0)).verdict is Verdict.OK


def test_addresses_that_others_cannot_use_are_told_apart():
    contact = parse_address(UNREACHABLE)
    public = Address(contact.text, "8.8.8.8", 31337, contact.peer_id)
    here, lan = ["/ip4/127.0.0.1/tcp/1"], ["/ip4/192.168.1.5/tcp/1", "/ip4/127.0.0.1/tcp/1"]
    assert judge_addresses(here, contact).verdict is Verdict.OK
    assert judge_addresses(here, public).verdict is Verdict.FAIL
    assert judge_addresses(lan, public).verdict is Verdict.WARN
    assert judge_addresses(["/ip4/8.8.4.4/tcp/1"], public).verdict is Verdict.OK
    assert judge_addresses([], public).verdict is Verdict.FAIL


def test_a_slow_line_and_a_closed_port_are_warnings():
    assert judge_speed("upload", Speed(2**20, 10.0)).verdict is Verdict.WARN
    assert judge_speed("upload", Speed(10 * 2**20, 1.0)).verdict is Verdict.OK
    assert judge_port(4001, PortAnswer("203.0.113.9", "no answer within 3 s")).verdict is Verdict.WARN


@pytest.fixture
def dgx2(monkeypatch) -> Callable[..., None]:
    """Sixteen V100 as torch tells of them: `gone` ones do not answer, `kernels` is what this build has."""

    def install(*gone: int, kernels: tuple[str, ...] = ("sm_70", "sm_80", "compute_90")) -> None:
        zeros = torch.zeros

        def on_the_cpu(*shape: int, device: object = None, **options: object) -> torch.Tensor:
            if torch.device(device or "cpu").index in gone:
                raise RuntimeError("CUDA error: device unavailable")
            return zeros(*shape, **options)

        facts = {
            "device_count": lambda: 16,
            "get_device_capability": lambda device: (7, 0),
            "get_device_name": lambda device: "Tesla V100-SXM3-32GB",
            "get_arch_list": lambda: list(kernels),
            "mem_get_info": lambda device: (31 * 2**30 - torch.device(device).index * 2**30, 2**35),
            "is_bf16_supported": lambda including_emulation: including_emulation,
        }
        for name, answer in facts.items():
            monkeypatch.setattr(torch.cuda, name, answer)
        monkeypatch.setattr(torch, "zeros", on_the_cpu)

    return install


def test_every_gpu_of_a_node_is_tried(dgx2):
    dgx2()
    found = check_device(None)
    assert found.verdict is Verdict.OK
    assert found.words == "16 x Tesla V100-SXM3-32GB, at least 16.0 GiB free on each, in fp16"
    assert check_device("cuda", 8).words.startswith("8 x Tesla V100-SXM3-32GB, at least 24.0 GiB")
    too_many = check_device("cuda", 17)
    assert too_many.verdict is Verdict.FAIL
    assert "--ranks 16" in too_many.fix
    dgx2(3, 7)
    found = check_device(None)
    assert found.verdict is Verdict.WARN
    assert found.words.startswith("14 x ")
    assert "cuda:3, cuda:7 cannot be used" in found.words
    assert "nvidia-smi" in found.fix


def test_a_build_without_kernels_for_the_gpus_is_a_failure(dgx2):
    dgx2(kernels=("sm_75", "sm_80", "sm_90", "compute_120"))
    found = check_device("cuda")
    assert found.verdict is Verdict.FAIL
    assert "no kernels for sm_70" in found.words
    assert "12.6" in found.fix


def test_a_driver_tool_that_fails_is_no_gpu(tmp_path):
    assert gpus_of_the_driver([str(tmp_path / "nvidia-smi")]) == []
    assert gpus_of_the_driver(["false"]) == []
    assert gpus_of_the_driver(["echo", "No devices were found"]) == []


def test_a_check_that_breaks_is_a_finding(monkeypatch, tmp_path):
    from peer import doctor as module

    def broken() -> Finding:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(module, "check_memory", broken)
    found = by_check(examine(module.DoctorOptions(tmp_path, "cpu")))
    assert found["memory"].verdict is Verdict.FAIL
    assert "out of luck" in found["memory"].words
    assert found["cache folder"].verdict is not Verdict.FAIL
