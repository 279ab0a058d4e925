"""Every command line in `docker/`, wherever it stands, and what the real commands say to it.

`parse` gives words to typer as a shell would, so an option that does not exist, lacks its value or is out of range is
an error of the test that read it from a manifest.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer
import yaml
from typer.main import get_command

import coordinator.cli
import peer.cli
from swarm.identity import Identity

DOCKER = Path(__file__).parents[2] / "docker"
APPS: dict[str, typer.Typer] = {"peer": peer.cli.app, "coordinator": coordinator.cli.app}
ADDRESS = f"/ip4/203.0.113.7/tcp/31337/p2p/{Identity.generate().peer_id}"
JOIN_LINE = f"peer join --initial-peers {ADDRESS} --run {'5d' * 32}"
POD_KINDS = ("Deployment", "StatefulSet", "Job")


def parse(words: Sequence[str]) -> dict[str, Any]:
    """Parameters of a command line as its command would get them; raises click's usage errors.

    `artel-join` stands for the join line and what follows it.
    """
    words = list(words)
    if words[0] == "artel-join":
        words = [*shlex.split(JOIN_LINE), *words[1:]]
    group = get_command(APPS[words[0]])
    if words[1] not in group.commands:  # type: ignore[attr-defined]
        raise ValueError(f"`{words[0]} {words[1]}` does not exist")
    return group.commands[words[1]].make_context(words[1], words[2:]).params  # type: ignore[attr-defined]


def compose() -> dict[str, Any]:
    """The compose file, its anchors resolved."""
    return yaml.safe_load((DOCKER / "compose.yaml").read_text())


def manifests() -> Iterator[dict[str, Any]]:
    """Every object in the Kubernetes folder."""
    for path in sorted((DOCKER / "kubernetes").glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and pod spec of everything that runs."""
    for manifest in manifests():
        if manifest["kind"] in POD_KINDS:
            yield manifest["metadata"]["name"], manifest["spec"]["template"]["spec"]


def variables_of_commands() -> set[str]:
    """Environment variables that stand for an option of one of the real commands."""
    groups = [get_command(app) for app in APPS.values()]
    commands = [command for group in groups for command in group.commands.values()]  # type: ignore[attr-defined]
    return {str(option.envvar) for command in commands for option in command.params if option.envvar}


def files_of_a_spot_machine() -> dict[str, dict[str, Any]]:
    """What cloud-init writes, by path."""
    cloud = yaml.safe_load((DOCKER / "systemd" / "spot-instance.yaml").read_text())
    return {file["path"]: file for file in cloud["write_files"]}


def units() -> dict[str, str]:
    """The systemd unit and the one inside the cloud-init file, by file name."""
    return {
        "artel-peer.service": (DOCKER / "systemd" / "artel-peer.service").read_text(),
        "spot-instance.yaml": files_of_a_spot_machine()["/etc/systemd/system/artel-peer.service"]["content"],
    }


def unit_commands() -> dict[str, list[str]]:
    """ExecStart of every unit, by file name."""
    return {name: _exec_start(text) for name, text in units().items()}


def all_commands() -> dict[str, list[str]]:
    """By where it stands, for a failing test to name."""
    found = {f"compose.yaml {name}": service["command"] for name, service in compose()["services"].items()}
    found |= {f"kubernetes {name}": pod["containers"][0]["args"] for name, pod in pods()}
    return found | unit_commands()


def seconds(duration: str) -> float:
    """`90`, `90s`, `15m` as compose and systemd write them.

    >>> seconds("15m"), seconds("40s"), seconds("45")
    (900.0, 40.0, 45.0)
    """
    units = {"s": 1, "m": 60, "h": 3600}
    return float(duration[:-1]) * units[duration[-1]] if duration[-1] in units else float(duration)


def _exec_start(unit: str) -> list[str]:
    line = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    words = shlex.split(
        line.removeprefix("ExecStart=").replace("$ARTEL_JOIN", JOIN_LINE.removeprefix("peer join "))
    )
    return [Path(words[0]).name, *words[1:]]
