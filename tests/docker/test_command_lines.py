"""Commands, options, ports, paths, variables and times in `docker/` are the project's own."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from coordinator.dashboard import create_replay_app
from coordinator.history import History
from coordinator.host_port import parse_host_port
from coordinator.options import DEFAULT_LISTEN
from peer.grace import FAREWELL_SECONDS
from swarm.addresses import require_port_free
from swarm.records import LISTEN_ADDRESS
from swarm.spec import load_spec
from tests.docker.build_context import ROOT, context_files
from tests.docker.command_lines import (
    DOCKER,
    all_commands,
    compose,
    manifests,
    parse,
    pods,
    seconds,
    unit_commands,
    units,
    variables_of_commands,
)

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

COMMANDS = all_commands()
SCRIPTS = {path.stem: path.read_text() for path in DOCKER.glob("*.sh")}
DOCKERFILE = (DOCKER / "Dockerfile").read_text()
PORT = DEFAULT_LISTEN.rpartition("/")[2]
DASHBOARD_PORT = "8080"


@pytest.mark.parametrize("place", COMMANDS)
def test_a_command_is_understood_by_the_real_one(place):
    parameters = parse(COMMANDS[place])
    require_port_free([re.sub(r"/tcp/\d+$", "/tcp/0", text) for text in parameters["host_maddrs"] or []])
    for address in [*(parameters["host_maddrs"] or []), *(parameters["announce_maddrs"] or [])]:
        address = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", address)
        assert re.match(LISTEN_ADDRESS, address), address
        assert address.endswith(f"/tcp/{PORT}")
    if "dashboard" in parameters:
        assert parse_host_port(parameters["dashboard"]) == ("0.0.0.0", int(DASHBOARD_PORT))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("peer join --initial-peers a --rank-count 16", "--rank-count"),
        ("artel-join --grace 1", "greater than or equal to 5|x>=5"),
        ("coordinator start", "does not exist"),
    ],
)
def test_a_command_that_is_wrong_would_be_noticed(words, complaint):
    with pytest.raises(Exception, match=complaint) as caught:
        parse(words.split())
    assert not isinstance(caught.value, AssertionError)


@pytest.mark.parametrize("name", dict(pods()))
def test_a_pod_has_room_and_time_to_leave(name):
    pod = dict(pods())[name]
    container = pod["containers"][0]
    period = pod["terminationGracePeriodSeconds"]
    if container["args"][0] == "artel-join":
        grace = parse(container["args"])["grace"]
        leave, waits = container["lifecycle"]["preStop"]["exec"]["command"]
        assert leave == "artel-leave"
        assert grace > FAREWELL_SECONDS
        assert grace < int(waits) < period - 5
    assert pod["securityContext"]["runAsUser"] == int(re.search(r"^USER (\d+)", DOCKERFILE, re.M)[1])
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    mounted = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes[mounted["/dev/shm"]]["emptyDir"]["medium"] == "Memory"
    # sockets and scratch, with a root that cannot be written to
    assert "/tmp" in mounted
    assert_paths_are_mounted(container["args"], set(mounted))


@pytest.mark.parametrize("name", compose()["services"])
def test_a_service_of_compose_has_room_and_time_to_leave(name):
    service = compose()["services"][name]
    parameters = parse(service["command"])
    assert seconds(service["stop_grace_period"]) > parameters.get("grace", 30.0) + 5
    assert service["shm_size"] == "2gb"
    assert service["read_only"] is True
    mounted = {volume.rpartition(":ro")[0] or volume for volume in service["volumes"]}
    mounted = {volume.rpartition(":")[2] for volume in mounted} | {"/tmp"}
    assert_paths_are_mounted(service["command"], mounted)
    assert service["build"]["target"] in re.findall(r"^FROM .* AS (\w+)$", DOCKERFILE, re.M)


def assert_paths_are_mounted(words: list[str], mounted: set[str]) -> None:
    for word in words:
        if re.match(r"/(data|cache|etc|tmp)\b", word):
            assert any(Path(word).is_relative_to(mount) for mount in mounted), word


def test_what_systemd_waits_for_is_longer_than_the_grace_period():
    for name, words in unit_commands().items():
        stop = re.search(r"^TimeoutStopSec=(\d+)$", units()[name], re.M)
        assert int(stop[1]) > parse(words)["grace"] + 4
        # SIGTERM is for the peer; its children die with it
        assert "KillMode=mixed" in units()[name]


def test_the_wheel_that_the_cloud_example_installs_is_the_one_that_is_built():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    name = f"{project['name']}-{project['version']}-py3-none-any.whl"
    assert name in (DOCKER / "systemd" / "spot-instance.yaml").read_text()


def test_ports_are_the_projects_defaults_everywhere():
    assert set(re.search(r"^EXPOSE (.*)$", DOCKERFILE, re.M)[1].split()) == {PORT, DASHBOARD_PORT}
    assert compose()["services"]["coordinator"]["ports"] == ["31337:31337", "127.0.0.1:8080:8080"]
    service = next(manifest for manifest in manifests() if manifest["kind"] == "Service")
    assert {str(port["port"]) for port in service["spec"]["ports"]} == {PORT, DASHBOARD_PORT}
    for _name, pod in pods():
        for port in pod["containers"][0]["ports"]:
            assert str(port["containerPort"]) in (PORT, DASHBOARD_PORT)


def test_the_services_name_is_where_peers_are_sent():
    service = next(manifest for manifest in manifests() if manifest["kind"] == "Service")["metadata"]
    host = f"{service['name']}.{service['namespace']}.svc"
    for name, pod in pods():
        variables = {entry["name"]: entry.get("value") for entry in pod["containers"][0].get("env", [])}
        if name == "artel-coordinator":
            assert f"/dns4/{host}/tcp/{PORT}" in pod["containers"][0]["args"]
        else:
            assert variables["ARTEL_DASHBOARD"] == f"http://{host}:{DASHBOARD_PORT}"
    services = compose()["services"]
    assert services["peer-1"]["environment"]["ARTEL_DASHBOARD"] == f"http://coordinator:{DASHBOARD_PORT}"
    assert "/dns4/coordinator/tcp/31337" in str(services["coordinator"]["command"])


def test_variables_that_are_set_are_read_and_explained():
    read = {name for text in SCRIPTS.values() for name in re.findall(r"\$\{?(ARTEL_\w+)", text)}
    explained = {name for text in SCRIPTS.values() for name in re.findall(r"^# .*?\b(ARTEL_\w+)", text, re.M)}
    assert read <= explained
    read |= variables_of_commands()
    for name, service in compose()["services"].items():
        assert {key for key in service["environment"] if key.startswith("ARTEL_")} <= read, name
    for name, pod in pods():
        names = {entry["name"] for entry in pod["containers"][0].get("env", [])}
        assert {key for key in names if key.startswith("ARTEL_")} <= read, name
    text = (DOCKER / "compose.yaml").read_text()
    interpolated = set(re.findall(r"\$\{(\w+)", text))
    assert all(f"{name} " in text or f"{name}=" in text for name in interpolated - {"ARTEL_THREADS"})


def test_probes_ask_what_the_coordinator_answers(tmp_path):
    history = History(tmp_path / "history.sqlite")
    routes = set(create_replay_app(history).openapi()["paths"])
    history.close()
    text = "".join(path.read_text() for path in DOCKER.rglob("*.yaml")) + SCRIPTS["artel-join"]
    asked = set(re.findall(r"/api/[a-z]+", text))
    assert asked
    assert asked <= routes


def test_what_images_are_made_of_exists_and_is_let_through():
    context = {str(path) for path in context_files()}
    folders = {str(path.parent) for path in context_files()}
    for words in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.M):
        for source in words.split():
            assert source == "." or source in context, source
    definition = (DOCKER / "slurm" / "artel.def").read_text()
    for line in re.search(r"%files\n(.*?)\n\n", definition, re.S)[1].splitlines():
        for source in line.split()[:-1]:
            assert source in context or source in folders, source
    for line in re.findall(
        r"docker/[\w./-]+\w",
        "".join(p.read_text() for p in DOCKER.rglob("*.*") if p.is_file() and p.suffix != ".json"),
    ):
        assert (ROOT / line).exists(), line


def test_the_build_context_has_no_secret_and_no_run():
    tops = {path.parts[0] for path in context_files()}
    assert tops <= {
        *("LICENSE", "README.md", "constraints.txt", "pyproject.toml", "docker", "examples"),
        *("model", "data_prep", "swarm", "peer", "coordinator", "finetune"),
    }


def test_images_are_pinned_and_named_alike():
    base = re.search(r"^ARG PYTHON_IMAGE=(python:3\.\d+\.\d+-slim-\w+)$", DOCKERFILE, re.M)[1]
    definition = (DOCKER / "slurm" / "artel.def").read_text()
    assert f"From: {base}\n" in definition
    built = set(re.findall(r"-t (artel:\w+)", DOCKERFILE))
    kustomization = next(manifest for manifest in manifests() if manifest["kind"] == "Kustomization")
    tag = f"artel:{kustomization['images'][0]['newTag']}"
    named = {pod["containers"][0]["image"] for _name, pod in pods()}
    assert {tag if name == "artel" else name for name in named} <= built
    kinds = set(re.findall(r"\bcu\d+\b", definition))
    assert kinds
    assert kinds <= set(re.findall(r"\bcu\d+\b", DOCKERFILE))


def test_kustomize_finds_its_files_and_the_spec_is_a_run():
    folder = DOCKER / "kubernetes"
    kustomization = next(manifest for manifest in manifests() if manifest["kind"] == "Kustomization")
    assert all((folder / name).is_file() for name in kustomization["resources"])
    generated = kustomization["configMapGenerator"][0]
    assert load_spec(folder / generated["files"][0]) == load_spec(ROOT / "examples" / "demo.toml")
    coordinator = dict(pods())["artel-coordinator"]
    spec = next(volume for volume in coordinator["volumes"] if volume["name"] == "spec")
    assert spec["configMap"]["name"] == generated["name"]


def test_the_node_job_asks_for_all_gpus_and_forgives_preemption():
    job = next(manifest for manifest in manifests() if manifest["kind"] == "Job")
    resources = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources["requests"]["nvidia.com/gpu"] == resources["limits"]["nvidia.com/gpu"] == 16
    assert job["spec"]["podFailurePolicy"]["rules"][0]["onPodConditions"] == [
        {"type": "DisruptionTarget", "status": "True"}
    ]
