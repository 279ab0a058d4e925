"""What is wrong with the options of `coordinator run` is told before anything of the run is made."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from typer.main import get_command

from coordinator.cli import app
from data_prep.command_line import exit_code_of

LISTEN = ("--host-maddrs", "/ip4/127.0.0.1/tcp/0", "--dashboard", "127.0.0.1:0")
LOCAL = (*LISTEN, "--with-local-peer", "--local-peer-options")


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((*LISTEN, "--control", "foo"), "'foo' is not HOST:PORT: give e.g. --control"),
        ((*LISTEN, "--dashboard", "foo"), "'foo' is not HOST:PORT: give e.g. --dashboard"),
        (
            (*LISTEN, "--control-tls-cert", "none.pem"),
            "--control-tls-cert and --control-tls-key belong together",
        ),
        (
            (*LISTEN, "--control-tls-cert", "none.pem", "--control-tls-key", "none.key"),
            "--control-tls-cert none.pem and --control-tls-key none.key cannot be used (No such file or directory)",
        ),
        ((*LISTEN, "--local-peer-options", "--device cpu"), "--local-peer-options is for --with-local-peer"),
        ((*LOCAL, "'"), "cannot be split into words: No closing quotation"),
    ],
)
def test_what_is_malformed_or_not_there(refuse, options, words):
    code, line = refuse(*options)
    assert code == 2
    assert words in line


@pytest.mark.parametrize("option", ["--dashboard", "--control"])
def test_a_port_in_use(refuse, option):
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        code, line = refuse(*LISTEN, option, place)
    assert code == 1
    assert f"{place} " in line
    assert "Address already in use" in line
    assert f"give another {'address ' if option == '--control' else ''}with {option}" in line


def test_one_port_for_both(refuse):
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
    code, line = refuse(*LISTEN, "--dashboard", place, "--control", place)
    assert code == 1
    assert f"the control API cannot listen on {place}" in line


def test_a_certificate_that_is_none(refuse, tmp_path):
    file = tmp_path / "none.pem"
    file.write_text("otter")
    code, line = refuse(*LISTEN, "--control-tls-cert", str(file), "--control-tls-key", str(file))
    assert code == 2
    assert "give PEM files" in line


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--foo", "--local-peer-options '--foo': No such option: --foo"),
        ("--device cpu --ranks 100000", "give at most"),
        ("--announce-maddrs banana", "is not an address to announce"),
    ],
)
def test_what_the_peer_on_this_machine_would_refuse(refuse, options, words):
    code, line = refuse(*LOCAL, options)
    assert code == 2
    assert words in line
