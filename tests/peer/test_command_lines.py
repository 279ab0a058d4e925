"""What `peer` says: to a command line that lacks something, and of what it has done."""

from __future__ import annotations

from dataclasses import fields

import pytest
from typer.main import get_command

from data_prep.command_line import exit_code_of
from peer.cli import app
from peer.global_step import StepReport, StepSeconds
from peer.reporting import Reporter


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


def test_a_step_made_alone_is_told_as_of_one_peer(capsys):
    seconds = StepSeconds(**{field.name: 0.0 for field in fields(StepSeconds)})
    report = StepReport(3, None, 1, 0, 1, 1, received=1.0, seconds=seconds, trouble="")
    Reporter().step(report, "")
    Reporter().leaving("asked to", 1)
    told = capsys.readouterr().out
    assert "1 sample of 1 peer (1 ours)" in told
    assert "leaving: asked to; 1 sample to place" in told
