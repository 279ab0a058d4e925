"""Simulates a run: a seeded discrete-event model of many peers that come and go, days in seconds of CPU.

The same spec, options and seed give the same report. What is modelled, and what is not, stands with the parts: who
comes and goes (`churn`), what times are (`timings`), when a step is due (`swarm_model`), how it is made
(`averaging_rounds`), what happens to peers (`lives`).
"""

from __future__ import annotations

from collections.abc import Callable

from coordinator.simulation.calibration import Calibration, load_calibration
from coordinator.simulation.churn import Script, draw_script
from coordinator.simulation.ledger import OnlineTimeline
from coordinator.simulation.lives import Lives
from coordinator.simulation.options import SimulationOptions
from coordinator.simulation.report import SimulationReport, make_report
from coordinator.simulation.sizes import transfer_sizes
from coordinator.simulation.swarm_model import SimulatedSwarm
from coordinator.simulation.timings import Timings, fit
from swarm.spec import RunSpec

TIMELINE_SLICES = 240


def simulate(
    spec: RunSpec, options: SimulationOptions, calibration: Calibration | None = None
) -> SimulationReport:
    """Simulate this run with the peers that the options describe; `calibration` is by default the shipped one.

    >>> simulate(RunSpec(name="demo"), SimulationOptions(peers=8, hours=1.0)).goodput > 0.9
    True
    """
    timings = fit(calibration or load_calibration())
    return run_script(spec, draw_script(options), timings, options.seconds, options.seed, options.grace)


def run_script(
    spec: RunSpec,
    script: Script,
    timings: Timings,
    seconds: float,
    seed: int = 0,
    grace: float = 30.0,
    pace: Callable[[int], float] | None = None,
) -> SimulationReport:
    """Simulate exactly these peers and what happens to them."""
    timeline = OnlineTimeline(seconds, TIMELINE_SLICES)
    swarm = SimulatedSwarm(spec, script, timings, transfer_sizes(spec), seed, timeline, pace)
    lives = Lives(swarm, grace)
    for happening in script.happenings:
        swarm.queue.at(happening.t, lives.apply, happening)
    swarm.queue.run(until=seconds)
    lives.end()
    return make_report(swarm.ledger, swarm.peers, timeline, seconds, spec.training.target_batch_size)
