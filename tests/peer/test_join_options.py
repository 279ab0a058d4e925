"""What is wrong with the options of `peer join` and `peer doctor` is told before the run is asked anything."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from typer.main import get_command

from data_prep.command_line import exit_code_of
from peer.cli import app
from swarm.identity import Identity
from tests.scenarios.swarm_under_test import ROOT

NOBODY = ("--initial-peers", f"/ip4/127.0.0.1/tcp/1/p2p/{Identity.generate().peer_id}")


def refuse(capsys, *words: str) -> str:
    """Give `peer` a command line that is bad input; returns the one line that it says."""
    code = exit_code_of(lambda: get_command(app)(list(words), standalone_mode=False))
    (line,) = capsys.readouterr().err.splitlines()
    assert code == 2, line
    return line


@pytest.mark.parametrize("command", ["join", "doctor"])
def test_an_address_that_cannot_be_used(capsys, command):
    line = refuse(capsys, command, *NOBODY, "--announce-maddrs", "banana")
    assert "'banana' is not an address to announce" in line
    line = refuse(capsys, command, *NOBODY, "--host-maddrs", "/ip4/localhost/tcp/0")
    assert "'/ip4/localhost/tcp/0' is not an address to listen on" in line


@pytest.mark.parametrize(
    ("name", "words"),
    [("x" * 300, "at most 200 characters"), ("", "empty"), (" ", "empty"), ("\udcff", "unicode")],
)
def test_a_name_that_cannot_be_shown(capsys, name, words):
    line = refuse(capsys, "join", *NOBODY, "--name", name)
    assert line.startswith("error: --name ")
    assert words in line


@pytest.mark.parametrize(
    "options",
    [
        ("--initial-peers", "foo"),
        (*NOBODY, "--announce-maddrs", "banana"),
        (*NOBODY, "--grace", "1"),
        (),
        (*NOBODY, "--device", "cpu", "--precision", "int8"),
        (*NOBODY, "--device", "cpu", "--ranks", "2", "--precision", "int8"),
    ],
    ids=["address", "announced", "out of range", "missing", "precision", "ranks"],
)
def test_bad_input_is_an_event_too_where_events_are_asked_for(options):
    command = [sys.executable, "-c", "from peer.cli import main; main()", "join", "--json", *options]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert answer.returncode == 2, answer.stderr
    event = json.loads(answer.stdout)
    assert event["event"] == "error"
    assert answer.stderr == f"error: {event['text']}\n"
