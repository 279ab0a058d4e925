"""Runs by invitation: the token reaches every peer, and nobody else on its machine."""

from __future__ import annotations

import os
import re
import shlex
import stat
import subprocess

import pytest

from swarm.errors import BadInput
from tests.docker.command_lines import (
    DOCKER,
    compose,
    files_of_a_spot_machine,
    parse,
    pods,
    unit_commands,
    units,
    variables_of_commands,
)

TICKET = "ARTEL_TICKET"
SUDO = '#!/bin/sh\nexec "$@"\n'
SUDOEDIT = '#!/bin/sh\ntest -f "$1" && echo \'ARTEL_TICKET=secret\' > "$1"\n'


def test_it_is_the_variable_that_the_commands_read():
    assert TICKET in variables_of_commands()


@pytest.mark.parametrize(
    "name", [name for name, pod in pods() if pod["containers"][0]["args"][0] == "artel-join"]
)
def test_a_pod_has_the_token_from_a_secret_if_there_is_one(name):
    variables = {entry["name"]: entry for entry in dict(pods())[name]["containers"][0]["env"]}
    wanted = variables[TICKET]["valueFrom"]["secretKeyRef"]
    assert wanted["optional"] is True
    made = re.search(
        r"create secret generic (\S+) --from-file=(\w+)=", (DOCKER / "kubernetes/peers.yaml").read_text()
    )
    assert (wanted["name"], wanted["key"]) == made.groups()


def test_compose_gives_it_to_the_peers_only():
    services = compose()["services"]
    peers = {name for name in services if name.startswith("peer")}
    assert peers == {name for name, service in services.items() if TICKET in service["environment"]}
    assert {services[name]["environment"][TICKET] for name in peers} == {"${ARTEL_TICKET:-}"}


def test_the_commands_that_make_tokens_are_understood():
    texts = [path.read_text() for path in sorted(DOCKER.rglob("*.yaml"))]
    lines = [line for text in texts for line in re.findall(r"\b(coordinator invite [^|\\\n]*)", text)]
    assert len(lines) == 2
    for line in lines:
        assert parse(shlex.split(line))["machines"] > 1


def test_the_units_file_of_variables_is_its_owners_only(tmp_path):
    """The line that the unit tells to type, with a folder of ours for /etc."""
    for name, text in {"sudo": SUDO, "sudoedit": SUDOEDIT}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    (line,) = re.findall(
        r"^#     (.*(?:install|tee).*/etc/artel\.env.*)$", units()["artel-peer.service"], re.M
    )
    subprocess.run(
        ["sh", "-ec", line.replace("/etc/", f"{tmp_path}/")],
        env={"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        umask=0o022,
        timeout=60,
        check=True,
    )
    made = tmp_path / "artel.env"
    assert made.read_text() == "ARTEL_TICKET=secret\n"
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    assert files_of_a_spot_machine()["/etc/artel.env"]["permissions"] == "0600"


@pytest.mark.parametrize("name", units())
def test_a_unit_has_the_token_in_its_environment_and_does_not_repeat_what_cannot_succeed(name):
    assert "EnvironmentFile=/etc/artel.env\n" in units()[name]
    assert parse(unit_commands()[name])["ticket"] is None
    assert "Restart=on-failure\n" in units()[name]
    assert f"RestartPreventExitStatus={BadInput.exit_code}\n" in units()[name]
