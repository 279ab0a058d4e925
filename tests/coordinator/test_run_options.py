"""What is wrong with the options of `coordinator run` is told before anything of the run is made."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.main import get_command

from coordinator.cli import app
from swarm.cli_support import exit_code_of

LISTEN = ("--host-maddrs", "/ip4/127.0.0.1/tcp/0")


@pytest.fixture
def refuse(tmp_path: Path, capsys):
    """Start a coordinator that must refuse its options; returns its exit code and the one line that it says."""
    spec = tmp_path / "run.toml"
    spec.write_text('name = "x"\n[data]\nsource = "nowhere"\n')
    run_dir = tmp_path / "run"

    def refuse(*options: str) -> tuple[int, str]:
        words = ["run", str(spec), "--run-dir", str(run_dir), *options]
        code = exit_code_of(lambda: get_command(app)(words, standalone_mode=False))
        shown = capsys.readouterr()
        assert not run_dir.exists()
        assert shown.out == ""
        (line,) = shown.err.splitlines()
        return code, line

    return refuse


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--host-maddrs", "/ip4/localhost/tcp/0"), "is not an address to listen on"),
        ((*LISTEN, "--announce-maddrs", "203.0.113.7:31337"), "is not an address to announce"),
        (("--host-maddrs", "/ip4/203.0.113.7/tcp/0"), "is not an address of this machine"),
    ],
)
def test_an_address_that_cannot_be_used(refuse, options, words):
    code, line = refuse(*options)
    assert code == 2
    assert words in line
