"""What `peer` answers to a command line that lacks something, before anything is looked at."""

from __future__ import annotations

import pytest
from typer.main import get_command

from data_prep.command_line import exit_code_of
from peer.cli import app


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["join"], "--initial-peers is missing"),
        (["doctor", "--run", "xyz", "--json"], "--run cannot be checked without --initial-peers"),
    ],
)
def test_a_run_without_an_address_is_told_where_the_address_is(arguments, words, capsys):
    assert exit_code_of(lambda: get_command(app)(arguments, standalone_mode=False)) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"error: {words}")
    assert told.err.endswith("RUN_DIR/join.txt\n")
