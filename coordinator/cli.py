"""The `coordinator` command: parses, calls one function, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from coordinator.checkpoint_commands import evaluate, export
from coordinator.control_commands import Control, RunDir, TlsCa, add_control_commands
from coordinator.simulation.command import simulate_command
from data_prep.command_line import options_of_all_commands
from swarm.cli_support import run_app
from swarm.errors import BadInput

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Start and watch a collaborative training run."
)
app.callback()(options_of_all_commands)

app.command("simulate")(simulate_command)
add_control_commands(app)
app.command("export")(export)
app.command("evaluate")(evaluate)


@app.command()
def run(
    spec: Annotated[Path, typer.Argument(help="Run spec, a TOML file; examples/demo.toml is one.")],
    run_dir: Annotated[Path | None, typer.Option(help="Directory of the run; by default runs/NAME.")] = None,
    initial_peers: Annotated[
        list[str] | None, typer.Option(help="Join an existing swarm through these.")
    ] = None,
    host_maddrs: Annotated[
        list[str] | None, typer.Option(help="Where to listen; default port 31337.")
    ] = None,
    announce_maddrs: Annotated[
        list[str] | None, typer.Option(help="Addresses that others should use.")
    ] = None,
    dashboard: Annotated[str, typer.Option(help="HOST:PORT of the live page.")] = "127.0.0.1:8080",
    control: Annotated[
        str, typer.Option(help="HOST:PORT of the control API (gRPC); 0: a free port.")
    ] = "127.0.0.1:0",
    control_tls_cert: Annotated[Path | None, typer.Option(help="PEM file: TLS for the control API.")] = None,
    control_tls_key: Annotated[Path | None, typer.Option(help="PEM file with its private key.")] = None,
    authority: Annotated[
        Path | None,
        typer.Option(help="Serve a run that another coordinator has begun: its RUN_DIR/identity.key."),
    ] = None,
    ticket: Annotated[
        str | None,
        typer.Option(
            envvar="ARTEL_TICKET",
            help="Serve a run that another coordinator has begun: its token of `invite --role coordinator`.",
        ),
    ] = None,
    resume_from: Annotated[
        Path | None,
        typer.Option(
            help="Go on from a checkpoint of this run, or the newest in a folder of them; or begin a new run with the "
            "weights of another one, or of any directory that holds a LeanALBERT."
        ),
    ] = None,
    exit_when_finished: Annotated[bool, typer.Option(help="End after the last step's checkpoint.")] = False,
    with_local_peer: Annotated[
        bool, typer.Option("--with-local-peer", help="Train on this machine as well, on all its GPUs.")
    ] = False,
    local_peer_options: Annotated[
        str, typer.Option(help="Options of `peer join` for it, in one string: '--device cpu --ranks 4'.")
    ] = "",
) -> None:
    """Serve a run: first contact, checkpoints and a live page, until Ctrl-C; restart to resume."""
    from coordinator.options import DEFAULT_LISTEN, CoordinatorOptions, local_peer_of, tls_of
    from coordinator.run import run_coordinator
    from swarm.ticket import require_token

    options = CoordinatorOptions(
        spec_path=spec,
        run_dir=run_dir,
        initial_peers=initial_peers or [],
        host_maddrs=host_maddrs or [DEFAULT_LISTEN],
        announce_maddrs=announce_maddrs or [],
        dashboard=dashboard,
        control=control,
        control_tls=tls_of(control_tls_cert, control_tls_key),
        exit_when_finished=exit_when_finished,
        authority=authority,
        invitation=require_token(ticket) if ticket else None,
        resume_from=resume_from,
        local_peer=local_peer_of(with_local_peer, local_peer_options),
    )
    run_coordinator(options, lambda line: print(line, flush=True))


@app.command()
def status(
    run_dir: RunDir = None,
    control: Control = None,
    tls_ca: TlsCa = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show the run as its coordinator last saw it."""
    from coordinator.control_client import ControlClient, ControlPlace
    from coordinator.report import describe, read_status, status_over_control
    from coordinator.run_directory import find_run_directory

    if control is None:
        found = read_status(find_run_directory(run_dir))
    else:
        with ControlClient(ControlPlace(address=control, tls_ca=tls_ca)) as client:
            found = status_over_control(client)
    print(found.model_dump_json() if json else describe(found))


@app.command()
def watch(run_dir: RunDir = None, control: Control = None, tls_ca: TlsCa = None) -> None:
    """Show the essentials of the live page in this terminal, until Ctrl-C."""
    if not sys.stdout.isatty():
        raise BadInput("`coordinator watch` draws in a terminal: use `coordinator status --json` in scripts")
    from coordinator.control_client import ControlClient, ControlPlace
    from coordinator.report import watch_control, watch_run
    from coordinator.run_directory import find_run_directory

    if control is None:
        watch_run(find_run_directory(run_dir))
    else:
        with ControlClient(ControlPlace(address=control, tls_ca=tls_ca)) as client:
            watch_control(client)


@app.command()
def replay(
    run_dir: Annotated[Path, typer.Argument(help="Directory of a run that is over.")],
    dashboard: Annotated[str, typer.Option(help="HOST:PORT of the page.")] = "127.0.0.1:8080",
) -> None:
    """Open the live page's history of a run that is over, until Ctrl-C."""
    from coordinator.report import replay_run
    from coordinator.run_directory import find_run_directory

    replay_run(find_run_directory(run_dir), dashboard, lambda line: print(line, flush=True))


def main() -> None:
    """Entry point of the `coordinator` command."""
    run_app(app)
