"""The sub-commands against what users and strangers do: one line that names cause and fix, a code, no traceback."""

from __future__ import annotations

import datetime
import math
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from typer.testing import CliRunner

from coordinator import control_pb2, control_pb2_grpc
from coordinator.checkpoints import Checkpoint
from coordinator.cli import app
from coordinator.control_commands import parse_settings
from coordinator.control_messages import to_message
from coordinator.control_server import CALLS_BESIDE_WATCHERS, ControlServer, Tls
from coordinator.control_service import MAX_WATCHERS, SERVICE, ControlledRun, ControlService
from coordinator.control_token import load_or_create_token
from coordinator.status import CheckpointStatus
from data_prep.command_line import exit_code_of
from swarm.errors import BadInput, OperationFailed
from tests.coordinator.runs import peer, run_status
from tests.coordinator.test_settings_desk import Swarm

OWNER = [("authorization", "Bearer token")]
STATUS = run_status(
    peer(1, loss=5.5, error="нет группы", reloads={"fell behind": 2}),
    peer(2, "lost"),
    checkpoints=[
        CheckpointStatus(step=5, path="checkpoints/step-00000005", heldout_loss=5.0, digest="sha256:ab")
    ],
    train_loss=5.5,
    generated_at=1.5,
)


@pytest.fixture
def served(tmp_path) -> Iterator[Path]:
    """A run directory whose control API answers from made-up parts."""
    (tmp_path / "run.toml").write_text("")
    swarm = Swarm(tmp_path)
    token = load_or_create_token(tmp_path / "control.token")
    server = ControlServer(ControlService(run_of(swarm)), token, "127.0.0.1:0")
    server.start()
    (tmp_path / "control.txt").write_text(server.address + "\n")
    yield tmp_path
    server.stop()


def run_of(swarm: Swarm) -> ControlledRun:
    def refuse() -> Future[Checkpoint]:
        wish: Future[Checkpoint] = Future()
        wish.set_exception(
            OperationFailed("checkpoint step-00000007 could not be written (No space left on device)")
        )
        return wish

    return ControlledRun(
        lambda: STATUS, swarm.desk, swarm.admission_desk, refuse, lambda _checkpoint: STATUS.checkpoints[0]
    )


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a sub-command, in this process."""
    from typer.main import get_command

    code = exit_code_of(lambda: get_command(app)(list(arguments), standalone_mode=False))
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_what_is_read_needs_no_token_and_what_is_sent_is_what_is_shown(served, capsys):
    address = (served / "control.txt").read_text().strip()
    code, out, _err = call(capsys, "status", "--control", address, "--json")
    assert (code, out) == (0, STATUS.model_dump_json() + "\n")
    assert call(capsys, "peers", "--control", address)[0] == 0
    assert "otter-1" in call(capsys, "peers", "otter-1", "--run-dir", str(served))[1]
    assert "otter-2" not in call(capsys, "peers", "--state", "training", "--run-dir", str(served))[1]
    assert "held-out loss 5.000" in call(capsys, "checkpoints", "--run-dir", str(served))[1]
    assert "target_batch_size 64" in call(capsys, "settings", "--run-dir", str(served))[1]


def test_a_change_is_told_in_a_line_and_seen_by_the_next_question(served, capsys):
    code, out, _err = call(capsys, "set", "target_batch_size=128", "--run-dir", str(served))
    assert code == 0
    assert "from step 106 on" in out
    assert "from step 106: target_batch_size 128" in call(capsys, "settings", "--run-dir", str(served))[1]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["peers", "nobody"], 2, "no peer 'nobody' is known"),
        (["peers", "--state", "asleep"], 2, "'asleep' is no state of a peer"),
        (["set", "target_batch_size=0"], 2, "target_batch_size cannot be 0"),
        (["set", "total_steps=99999999999999999999"], 2, "out of range"),
        (["set", "learning_rate_scale=nan"], 2, "learning_rate_scale cannot be nan"),
        (["set", "color=red"], 2, "'color=red' is not KEY=VALUE"),
        (["set"], 2, "Missing argument"),
        (["resume"], 1, "the run is not paused"),
        (["checkpoint"], 1, "No space left on device"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_line(served, capsys, arguments, code, words):
    assert_line(call(capsys, *arguments, "--run-dir", str(served)), code, words)


def test_without_the_token_or_with_a_wrong_one_nothing_changes(served, capsys, monkeypatch, tmp_path):
    address = (served / "control.txt").read_text().strip()
    for arguments in (["pause"], ["finish"], ["checkpoint"], ["set", "total_steps=500"]):
        assert_line(call(capsys, *arguments, "--control", address), 2, "--token-file")
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong\n")
    assert_line(
        call(capsys, "pause", "--control", address, "--token-file", str(wrong)), 2, "has another token"
    )
    assert_line(
        call(capsys, "pause", "--control", address, "--token-file", str(tmp_path / "none")), 2, "none"
    )
    monkeypatch.setenv("ARTEL_CONTROL_TOKEN", (served / "control.token").read_text().strip())
    assert call(capsys, "pause", "--control", address)[0] == 0


def test_where_no_run_is_or_no_coordinator_answers(served, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_line(call(capsys, "pause", "--run-dir", str(tmp_path / "none")), 2, "does not exist")
    assert_line(call(capsys, "pause"), 2, "no run under ./runs")
    (tmp_path / "empty").mkdir()
    assert_line(call(capsys, "pause", "--run-dir", str(tmp_path / "empty")), 1, "has no control.txt yet")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        assert_line(call(capsys, "peers", "--control", address), 1, f"no control API answers at {address}")
    assert_line(call(capsys, "peers", "--control", "localhost"), 2, "'localhost' is not HOST:PORT")
    away = ("--control", address, "--tls-ca", str(tmp_path / "none.pem"))
    assert_line(call(capsys, "peers", *away), 2, "give the right PEM file")


def test_garbage_on_the_port_disturbs_nobody_and_something_else_there_is_told(served, capsys):
    host, port = (served / "control.txt").read_text().strip().split(":")
    for garbage in (
        b"GET / HTTP/1.1\r\n\r\n",
        bytes(range(256)) * 64,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 999,
    ):
        with socket.create_connection((host, int(port))) as stranger:
            stranger.sendall(garbage)
    assert call(capsys, "peers", "--run-dir", str(served))[0] == 0

    with socket.create_server(("127.0.0.1", 0)) as other:
        threading.Thread(target=answer_in_http, args=(other,), daemon=True).start()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        assert_line(call(capsys, "peers", "--control", address), 1, address)


def answer_in_http(server: socket.socket) -> None:
    while True:
        try:
            connection, _address = server.accept()
        except OSError:
            return
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        connection.close()


def test_a_port_in_use_and_a_place_that_is_none(tmp_path):
    service = ControlService(run_of(Swarm(tmp_path)))
    with socket.create_server(("127.0.0.1", 0)) as other:
        place = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(OperationFailed, match=f"cannot listen on {place}: give another"):
            ControlServer(service, "token", place)
    with pytest.raises(BadInput, match="--control 127"):
        ControlServer(service, "token", "everywhere")


def test_watchers_are_limited_and_streams_end_with_the_server(tmp_path):
    service = ControlService(run_of(Swarm(tmp_path)))
    server = ControlServer(service, "token", "127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(server.address) as channel:
        api = control_pb2_grpc.ControlStub(channel)
        streams = [api.Watch(control_pb2.WatchRequest(), timeout=30) for _ in range(MAX_WATCHERS)]
        assert {next(stream).run_id for stream in streams} == {"test"}
        with pytest.raises(grpc.RpcError) as refused:
            next(api.Watch(control_pb2.WatchRequest(), timeout=30))
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError) as refused:
            next(api.Watch(control_pb2.WatchRequest(period=0.001), timeout=30))
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert api.GetRun(control_pb2.GetRunRequest(), timeout=30).run_id == "test", (
            "watchers leave room for calls"
        )
        server.stop()
        for stream in streams:
            for _message in stream:
                pass


@contextmanager
def serving(folder: Path) -> Iterator[tuple[grpc.Channel, control_pb2_grpc.ControlStub]]:
    """The API of a made-up run, and a connection to it."""
    server = ControlServer(ControlService(run_of(Swarm(folder))), "token", "127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(server.address) as channel:
            yield channel, control_pb2_grpc.ControlStub(channel)
    finally:
        server.stop()


def code_of(call: Callable[[], object]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    return refused.value.code()


@pytest.mark.parametrize("method", ["GetRun", "Watch"])
def test_strangers_whose_calls_never_end_hold_up_nobody_who_has_the_token(tmp_path, method):
    end = threading.Event()

    def nothing() -> Iterator[bytes]:
        end.wait()
        yield from ()

    with serving(tmp_path) as (channel, api):
        unfinished = channel.stream_stream(f"/{SERVICE}/{method}")
        held = [unfinished(nothing()) for _ in range(2 * (MAX_WATCHERS + CALLS_BESIDE_WATCHERS))]
        assert api.GetRun(control_pb2.GetRunRequest(), metadata=OWNER, timeout=30).run_id == "test"
        assert api.Pause(control_pb2.PauseRequest(), metadata=OWNER, timeout=30).from_step
        for call in held:
            call.cancel()
        end.set()


def test_strangers_and_owners_watch_without_taking_each_others_places(tmp_path):
    def watch(metadata: list[tuple[str, str]]) -> Iterator[control_pb2.Run]:
        return api.Watch(control_pb2.WatchRequest(), metadata=metadata, timeout=60)

    with serving(tmp_path) as (_channel, api):
        streams = [watch(metadata) for metadata in ([], OWNER) for _ in range(MAX_WATCHERS)]
        assert {next(stream).run_id for stream in streams} == {"test"}
        for metadata in ([], OWNER):
            assert code_of(partial(next, watch(metadata))) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert api.Pause(control_pb2.PauseRequest(), metadata=OWNER, timeout=30).from_step


def test_reflection_needs_the_token_and_a_refusal_waits_for_no_message(tmp_path):
    end = threading.Event()

    def requests() -> Iterator[reflection_pb2.ServerReflectionRequest]:
        end.wait()
        yield reflection_pb2.ServerReflectionRequest(list_services="")

    with serving(tmp_path) as (channel, _api):
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        assert code_of(lambda: next(ask(requests(), timeout=30))) is grpc.StatusCode.UNAUTHENTICATED
        end.set()
        told = next(ask(requests(), metadata=OWNER, timeout=30))
        assert SERVICE in {each.name for each in told.list_services_response.service}


def test_health_is_told_to_everybody_and_its_streams_hold_no_threads(tmp_path):
    with serving(tmp_path) as (channel, api):
        health, wanted = health_pb2_grpc.HealthStub(channel), health_pb2.HealthCheckRequest(service=SERVICE)
        streams = [
            health.Watch(wanted, timeout=60) for _ in range(2 * (MAX_WATCHERS + CALLS_BESIDE_WATCHERS))
        ]
        assert {next(stream).status for stream in streams} == {health_pb2.HealthCheckResponse.SERVING}
        assert health.Check(wanted, timeout=30).status == health_pb2.HealthCheckResponse.SERVING
        assert api.GetRun(control_pb2.GetRunRequest(), timeout=30).run_id == "test"


def test_watchers_of_health_that_come_and_go_hold_nobody_up(tmp_path):
    wanted = health_pb2.HealthCheckRequest(service=SERVICE)
    with serving(tmp_path) as (channel, api):
        watch = health_pb2_grpc.HealthStub(channel).Watch
        going = watch(wanted, timeout=60)
        for _ in range(200):
            next(going)
            coming = watch(wanted, timeout=60)
            going.cancel()
            going = coming
        assert next(going).status == health_pb2.HealthCheckResponse.SERVING
        assert api.GetRun(control_pb2.GetRunRequest(), timeout=30).run_id == "test"
        with pytest.raises(grpc.RpcError) as unknown:
            health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="another"), timeout=30
            )
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND


def test_over_tls(tmp_path, capsys):
    certificate, key = make_certificate(tmp_path)
    tls = Tls(certificate, key)
    tls.require_usable()
    server = ControlServer(ControlService(run_of(Swarm(tmp_path))), "token", "127.0.0.1:0", tls)
    server.start()
    try:
        port = server.address.rpartition(":")[2]
        code, out, _err = call(
            capsys, "peers", "--control", f"localhost:{port}", "--tls-ca", str(certificate)
        )
        assert (code, "otter-1" in out) == (0, True)
        assert_line(call(capsys, "peers", "--control", f"localhost:{port}"), 1, "--tls-ca")
    finally:
        server.stop()
    with pytest.raises(BadInput, match=r"none cannot be used \(No such file or directory\)"):
        Tls(certificate, tmp_path / "none").require_usable()


def make_certificate(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.datetime.now(datetime.timezone.utc)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).not_valid_before(now - datetime.timedelta(days=1))
    builder = builder.not_valid_after(now + datetime.timedelta(days=1))
    builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
    signed = builder.sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *private))
    return folder / "cert.pem", folder / "key.pem"


def test_the_token_is_made_once_for_its_owner_only(tmp_path):
    path = tmp_path / "control.token"
    token = load_or_create_token(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create_token(path) == token
    with pytest.raises(OperationFailed, match="cannot be kept"):
        load_or_create_token(tmp_path / "gone" / "control.token")


def test_numbers_are_read_as_what_they_are():
    assert parse_settings(["total_steps=7", "learning_rate_scale=0.5"]) == {
        "total_steps": 7,
        "learning_rate_scale": 0.5,
    }
    with pytest.raises(BadInput, match="whole number"):
        parse_settings(["total_steps=0.5"])


def test_messages_have_the_fields_of_the_models():
    """The conversion is by name: a field of one side only would be lost or refused."""
    from coordinator.status import PeerStatus, RunStatus
    from swarm.settings import RunSettings

    pairs = (
        (RunStatus, control_pb2.Run),
        (PeerStatus, control_pb2.Peer),
        (CheckpointStatus, control_pb2.Checkpoint),
        (RunSettings, control_pb2.Settings),
    )
    for model, message in pairs:
        assert set(model.model_fields) == set(message.DESCRIPTOR.fields_by_name)


def test_numbers_that_are_not_finite_are_left_out_of_messages():
    status = run_status(peer(1, loss=math.nan, samples_per_second=math.inf), train_loss=math.inf)
    message = to_message(status, control_pb2.Run())
    assert (message.samples_per_second, message.peers[0].samples_per_second) == (0.0, 0.0)
    assert not message.HasField("train_loss")
    assert not message.peers[0].HasField("loss")
    assert message.peers[0].name == "otter-1"


def test_the_generated_code_is_of_this_description(tmp_path):
    from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
    from grpc_tools import protoc

    root = Path(__file__).parents[2]
    out = tmp_path / "described"
    assert (
        protoc.main(["", f"-I{root}", f"--descriptor_set_out={out}", str(root / "coordinator/control.proto")])
        == 0
    )
    described = FileDescriptorSet.FromString(out.read_bytes()).file[0]
    generated = FileDescriptorProto()
    control_pb2.DESCRIPTOR.CopyToProto(generated)
    described.ClearField("source_code_info")
    for message in (described, generated):
        message.ClearField("name")
        for each in message.message_type:
            strip_json_names(each)
    assert described == generated, "run make proto"
    assert f"{generated.package}.{generated.service[0].name}" == SERVICE


def strip_json_names(message) -> None:
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        strip_json_names(nested)


def test_help_lists_the_commands():
    shown = CliRunner().invoke(app, ["--help"]).output
    for command in (
        "peers",
        "checkpoints",
        "checkpoint",
        "pause",
        "resume",
        "finish",
        "set",
        "export",
        "evaluate",
    ):
        assert command in shown


def assert_line(answer: tuple[int, str, str], code: int, words: str) -> None:
    assert answer[0] == code, answer
    assert answer[1] == ""
    assert answer[2].startswith("error: ")
    assert answer[2].count("\n") == 1
    assert words in answer[2]
