"""The `peer` command: parses, calls one function, prints."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from data_prep.command_line import options_of_all_commands
from peer.events import teller_of_failures
from peer.grace import DEFAULT_GRACE_SECONDS
from swarm.cli_support import run_app

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Take part in a collaborative training run."
)
app.callback()(options_of_all_commands)

JOIN_LINE = "the run's coordinator prints the line to join it, and keeps it in RUN_DIR/join.txt"
MorePeers = Annotated[list[str] | None, typer.Argument(hidden=True)]
Fingerprint = Annotated[str | None, typer.Option(help="Fingerprint of the run, from the `peer join` line.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 …; by default all GPUs, or the CPU.")]
ClientMode = Annotated[bool, typer.Option(help="Do not accept connections (behind a firewall).")]
HostMaddrs = Annotated[list[str] | None, typer.Option(help="Where to listen, e.g. /ip4/0.0.0.0/tcp/0.")]
AnnounceMaddrs = Annotated[list[str] | None, typer.Option(help="Addresses that others should use.")]
CacheDir = Annotated[Path | None, typer.Option(help="Folder for downloaded bundles and identities.")]


def default_cache_dir() -> Path:
    """Where bundles and identities are kept: $XDG_CACHE_HOME/artel or ~/.cache/artel."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "artel"


@app.command()
def join(
    initial_peers: Annotated[
        list[str] | None,
        typer.Option(
            help="Addresses printed by `coordinator run`; several may follow one another. Required."
        ),
    ] = None,
    more_peers: MorePeers = None,
    run: Fingerprint = None,
    name: Annotated[str | None, typer.Option(help="Name shown on the dashboard.")] = None,
    device: Device = None,
    ranks: Annotated[
        int | None,
        typer.Option(
            min=1, help="Processes that compute, one per device; by default all GPUs, or the CPU once."
        ),
    ] = None,
    micro_batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Samples per forward pass; found by a short search if not given."),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32, bf16 or fp16; by default bf16 where the device has it, fp16 on older GPUs."),
    ] = None,
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Recompute activations, even if memory suffices.")
    ] = False,
    compile: Annotated[bool, typer.Option("--compile", help="Use torch.compile; see `peer bench`.")] = False,
    client_mode: ClientMode = False,
    host_maddrs: HostMaddrs = None,
    announce_maddrs: AnnounceMaddrs = None,
    cache_dir: CacheDir = None,
    stop_after_steps: Annotated[
        int | None, typer.Option(min=1, help="Leave after so many global steps.")
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            min=5.0, help="Seconds to leave politely in after SIGTERM, SIGINT, SIGUSR1 or a notice."
        ),
    ] = DEFAULT_GRACE_SECONDS,
    ticket: Annotated[
        str | None,
        typer.Option(
            envvar="ARTEL_TICKET",
            help="Token of `coordinator invite`, where the run is by invitation; needed once.",
        ),
    ] = None,
    preemption_notice: Annotated[
        str | None,
        typer.Option(help="File or URL where the cloud announces that this machine will be taken away."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    check_only: Annotated[
        bool, typer.Option("--check-only", hidden=True, help="Look at the options, and join nothing.")
    ] = False,
) -> None:
    """Join a run and train until it is finished; Ctrl-C leaves politely, twice at once."""
    from swarm.addresses import require_valid_maddrs, split_addresses
    from swarm.errors import BadInput
    from swarm.ticket import require_token

    if not initial_peers:
        raise BadInput(f"--initial-peers is missing: {JOIN_LINE}")
    # a wrong address is told before the seconds that the next imports take
    addresses = split_addresses([*initial_peers, *(more_peers or [])])
    require_valid_maddrs(host_maddrs or [], announce_maddrs or [])
    invitation = require_token(ticket) if ticket else None
    from peer.node.devices import devices_for
    from peer.options import JoinOptions, require_valid_name
    from peer.preemption import PreemptionNotice

    if name is not None:
        require_valid_name(name)
    options = JoinOptions(
        addresses=addresses,
        fingerprint=run.removeprefix("sha256:") if run else None,
        name=name,
        device=device,
        ranks=ranks,
        micro_batch_size=micro_batch_size,
        precision=precision,
        gradient_checkpointing=gradient_checkpointing,
        compiled=compile,
        client_mode=client_mode,
        host_maddrs=host_maddrs or [],
        announce_maddrs=announce_maddrs or [],
        cache_dir=(cache_dir or default_cache_dir()).expanduser(),
        stop_after_steps=stop_after_steps,
        grace=grace,
        invitation=invitation,
        preemption_notice=PreemptionNotice(preemption_notice) if preemption_notice else None,
    )
    devices = devices_for(device, ranks)
    if check_only:
        return
    if len(devices) > 1:
        from peer.node.supervisor import run_node

        run_node(options, devices, as_json=json, debug=os.environ.get("ARTEL_DEBUG") == "1")
        return
    from peer.join import join as join_run
    from peer.reporting import make_reporter

    reporter = make_reporter(json)
    try:
        join_run(options, reporter)
    finally:
        reporter.close()


@app.command()
def bench(
    spec: Annotated[
        Path, typer.Argument(help="A run spec (.toml), a checkpoint's config.json, or the folder it is in.")
    ],
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1 …; by default a GPU if there is one.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="fp32, bf16 or fp16; several may be given.")
    ] = None,
    compile: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="By default both, if there is a compiler.")
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option(min=8, help="Tokens per row, instead of the run spec's.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=1.0, help="How long to measure in all, about.")] = 60.0,
    ranks: Annotated[
        str | None,
        typer.Option(help="Weak scaling instead: numbers of ranks, one per device, such as 1,2,4,8,16."),
    ] = None,
    micro_batch_size: Annotated[
        int | None, typer.Option(min=1, help="With --ranks: of each; found by a short search if not given.")
    ] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="With --ranks: micro-batches of each per global step; 16.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="With --ranks: write the curves here (.svg).")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Measure what this machine can do for a run, and say which micro-batch size, precision and compilation to use."""
    if ranks is not None:
        from peer.bench_command import scaling_command
        from peer.bench_plan import workload_of_file
        from peer.bench_scaling import DEFAULT_ACCUMULATE, ScalingPlan, parse_counts

        plan = ScalingPlan(
            workload_of_file(spec, sequence_length),
            parse_counts(ranks),
            device,
            precision,
            micro_batch_size,
            accumulate or DEFAULT_ACCUMULATE,
            bool(compile),
            seconds,
            os.environ.get("ARTEL_DEBUG") == "1",
        )
        raise typer.Exit(scaling_command(plan, plot, as_json=json))
    if (micro_batch_size, accumulate, plot) != (None, None, None):
        from swarm.errors import BadInput

        raise BadInput("--micro-batch-size, --accumulate and --plot are for --ranks")
    from peer.bench_command import bench_command

    bench_command(spec, device, precision, compile, sequence_length, seconds, as_json=json)


@app.command()
def doctor(
    initial_peers: Annotated[
        list[str] | None,
        typer.Option(help="Addresses of the `peer join` line; several may follow one another."),
    ] = None,
    more_peers: MorePeers = None,
    run: Fingerprint = None,
    device: Device = None,
    ranks: Annotated[
        int | None, typer.Option(min=1, help="Processes that would compute, as in join.")
    ] = None,
    client_mode: ClientMode = False,
    host_maddrs: HostMaddrs = None,
    announce_maddrs: AnnounceMaddrs = None,
    cache_dir: CacheDir = None,
    ticket: Annotated[
        str | None,
        typer.Option(
            envvar="ARTEL_TICKET", help="Token of `coordinator invite`; this machine keeps its ticket."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Look at what a peer needs here, and at the run if told where; exit code 1 if something must be fixed."""
    from swarm.addresses import require_valid_maddrs, split_addresses
    from swarm.errors import BadInput
    from swarm.ticket import require_token

    texts = [*(initial_peers or []), *(more_peers or [])]
    if run is not None and not texts:
        raise BadInput(f"--run cannot be checked without --initial-peers: {JOIN_LINE}")
    addresses = split_addresses(texts) if texts else []
    require_valid_maddrs(host_maddrs or [], announce_maddrs or [])
    invitation = require_token(ticket) if ticket else None
    from peer.doctor import DoctorOptions, doctor_command
    from peer.doctor_network import NetworkOptions

    network = NetworkOptions(
        addresses,
        run.removeprefix("sha256:") if run else None,
        host_maddrs or [],
        announce_maddrs or [],
        client_mode,
        invitation,
        folder := (cache_dir or default_cache_dir()).expanduser(),
    )
    options = DoctorOptions(folder, device, ranks, network)
    raise typer.Exit(doctor_command(options, as_json=json))


def main() -> None:
    """Entry point of the `peer` command."""
    run_app(app, tell=teller_of_failures(sys.argv[1:]))
