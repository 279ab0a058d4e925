"""`coordinator simulate`: parses, simulates, prints."""

from __future__ import annotations

import json as json_module
from pathlib import Path
from typing import Annotated

import typer

from coordinator.simulation.calibration import Calibration, load_calibration
from coordinator.simulation.compare import compare, comparison_table
from coordinator.simulation.distributions import Distribution, parse_duration
from coordinator.simulation.options import Churn, SimulationOptions
from coordinator.simulation.plot import write_plot
from coordinator.simulation.report import describe_report
from coordinator.simulation.simulator import simulate
from coordinator.simulation.storm_report import load_storm_report
from coordinator.simulation.sweep import parse_sweeps, run_sweep, sweep_table
from data_prep.counted import counted
from swarm.errors import BadInput
from swarm.spec import RunSpec, load_spec


def simulate_command(
    spec: Annotated[Path | None, typer.Argument(help="Run spec, a TOML file.")] = None,
    peers: Annotated[int, typer.Option(help="Peers online on average.")] = 64,
    hours: Annotated[float, typer.Option(help="Simulated time.")] = 24.0,
    seed: Annotated[int, typer.Option(help="Same seed, same peers, same answer.")] = 0,
    churn: Annotated[Churn, typer.Option(help="How peers come and go.")] = Churn.POISSON,
    mean_stay: Annotated[str, typer.Option(help="How long a peer stays on average: 30m, 4h, 2d.")] = "4h",
    speeds: Annotated[
        str, typer.Option(help="Samples/s of a peer: 50, 20-200, 20,60,250 or ~60 (a median).")
    ] = "50",
    bandwidth: Annotated[
        str, typer.Option(help="Mbit/s of a peer each way, written like --speeds, or `unlimited`.")
    ] = "100",
    polite: Annotated[float, typer.Option(help="Share of departures that are announced; others kill.")] = 0.5,
    grace: Annotated[float, typer.Option(help="Seconds that an announced departure may take.")] = 30.0,
    sweep: Annotated[
        list[str] | None,
        typer.Option(help="Try several values, e.g. target_batch_size=1024,4096; can be given again."),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="Measured times; `python -m benchmarks.round_times` writes one.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the curves here, one HTML file.")] = None,
    compare_with: Annotated[
        Path | None, typer.Option("--compare", help="Simulate what a real storm's report tells, and compare.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Simulate a run with many peers that come and go, to choose its batch size and timeouts."""
    times = load_calibration(calibration)
    if compare_with is not None:
        if spec is not None or sweep or plot:
            raise BadInput(
                "--compare takes everything from the storm's report: leave SPEC, --sweep, --plot out"
            )
        _compare(compare_with, times, json)
        return
    if spec is None:
        raise BadInput("which run? give the path of its spec, e.g. examples/rulean.toml")
    options = SimulationOptions(
        peers=peers,
        hours=hours,
        seed=seed,
        churn=churn,
        mean_stay=parse_duration(mean_stay, option="--mean-stay"),
        speeds=Distribution.parse(speeds, option="--speeds"),
        bandwidth=None if bandwidth == "unlimited" else Distribution.parse(bandwidth, option="--bandwidth"),
        polite=polite,
        grace=grace,
    )
    run = load_spec(spec)
    if run.averaging.overlap or run.local_steps is not None:
        typer.echo(
            "the model knows neither averaging.overlap nor local_steps: it lets peers stand still while they average",
            err=True,
        )
    title = f"{run.name}: {counted(peers, 'peer')}, {hours:g} h, churn {churn.value}, seed {seed}"
    if sweep:
        _sweep(run, options, sweep, times, plot, title, json)
    else:
        _simulate(run, options, times, plot, title, json)


def _simulate(
    run: RunSpec, options: SimulationOptions, times: Calibration, plot: Path | None, title: str, json: bool
) -> None:
    report = simulate(run, options, times)
    if plot is not None:
        write_plot(plot, title, report)
    print(report.model_dump_json() if json else describe_report(report))


def _sweep(
    run: RunSpec,
    options: SimulationOptions,
    sweep: list[str],
    times: Calibration,
    plot: Path | None,
    title: str,
    json: bool,
) -> None:
    points = list(run_sweep(run, options, parse_sweeps(sweep), times))
    if plot is not None:
        write_plot(plot, title, points)
    if json:
        print(json_module.dumps({"sweep": [point.model_dump(mode="json") for point in points]}))
    else:
        print(sweep_table(points))


def _compare(path: Path, times: Calibration, json: bool) -> None:
    figures = compare(load_storm_report(path), times)
    if json:
        print(json_module.dumps({"figures": [one.model_dump() | {"agrees": one.agrees} for one in figures]}))
    else:
        print(comparison_table(figures))
