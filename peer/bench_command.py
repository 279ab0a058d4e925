"""`peer bench`: a plan from what was asked, measured and printed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from model.training_step import PRECISIONS
from peer.bench import run_bench
from peer.bench_plan import BenchPlan, settings_for, workload_of_file
from peer.bench_scaling import ScalingPlan, measure_scaling
from peer.device import can_compile, choose_device, require_compiler
from peer.scaling_plot import draw_scaling
from swarm.errors import BadInput, OperationFailed


def bench_command(
    source: Path,
    device: str | None,
    precisions: list[str] | None,
    compiled: bool | None,
    sequence_length: int | None,
    seconds: float,
    *,
    as_json: bool,
) -> None:
    """Measure and print; raises `BadInput` for what cannot be measured here."""
    workload = workload_of_file(source, sequence_length)
    place = choose_device(device)
    if unknown := set(precisions or ()) - set(PRECISIONS):
        raise BadInput(f"--precision {unknown.pop()} is not one of {', '.join(PRECISIONS)}")
    if compiled:
        require_compiler(place)
    if compiled is None and not can_compile(place):
        compiled = False
    settings = settings_for(place, precisions, compiled)
    report = run_bench(BenchPlan(workload, str(place), settings, seconds, with_data=True))
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        print(*report.lines(), sep="\n")


def scaling_command(plan: ScalingPlan, plot: Path | None, *, as_json: bool) -> int:
    """Measure and print; returns the exit code, 1 if something could not be measured. What comes meanwhile: stderr."""
    if plot is not None and not plot.parent.is_dir():
        raise BadInput(f"--plot {plot}: there is no folder {plot.parent}")
    report = measure_scaling(plan, lambda text: print(text, file=sys.stderr, flush=True))
    if as_json:
        print(json.dumps(report.as_json()))
    else:
        print(*report.lines(), sep="\n")
    if plot is not None:
        try:
            plot.write_text(draw_scaling(report), encoding="utf-8")
        except OSError as error:
            raise OperationFailed(f"--plot {plot} cannot be written: {error.strerror}") from None
    return 1 if report.failures else 0
