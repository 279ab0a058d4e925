"""What the README says of steering a run is what the commands understand."""

from __future__ import annotations

import re
from pathlib import Path

from typer.main import get_command

from coordinator.cli import app
from coordinator.control_client import TOKEN_VARIABLE
from swarm.settings import CHANGEABLE

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def test_the_readme_names_every_way_to_reach_and_change_a_run():
    section = re.search(r"^\*\*Steering a run\.\*\*.*?(?=^\*\*)", README, re.M | re.S)[0]
    commands = get_command(app).commands
    options = {name for command in ("set", "run") for each in commands[command].params for name in each.opts}
    assert set(re.findall(r"`(--[\w-]+)", section)) <= options
    wanted = [*CHANGEABLE, TOKEN_VARIABLE, "--control", "--token-file", "--tls-ca", "--control-tls-cert"]
    assert [word for word in wanted if word not in section] == []
