"""A short storm, and a long one that is compared with a calm run."""

from __future__ import annotations

import json

import pytest

from coordinator.simulation.storm_report import load_storm_report
from swarm.spec import load_spec
from tests.scenarios.storm import Storm, StormOptions, endless, running
from tests.scenarios.storm_measures import Observation, compare, describe
from tests.scenarios.swarm_under_test import ROOT
from tests.scenarios.weather import Disturbance
from tests.spec_toml import spec_toml

DEMO = ROOT / "examples" / "demo.toml"

# what CPUs shared with other tests cannot promise: a peer may leave while nobody else has a state, and steps of a
# second leave slow peers behind; that samples are placed is what `test_leaving.py` asserts
TIMINGS = ("survivors needed", "killed peers needed", "goodput of peers that were told to go")


def weather(options: StormOptions, folder) -> Observation:
    folder.mkdir()
    with running(options, folder) as storm:
        assert isinstance(storm, Storm)
        return storm.run()


def test_the_tools_spec_is_one_that_can_be_read(tmp_path):
    """As the command line makes it: every key of the demo, and a run that does not end before the storm."""
    given = load_spec(DEMO)
    given_data = given.data.model_copy(update={"source": str(tmp_path)})
    (tmp_path / "given.toml").write_text(
        spec_toml(given.model_copy(update={"data": given_data}).model_dump(mode="json"))
    )
    made = load_spec(endless(tmp_path / "given.toml", tmp_path))
    assert made.training.total_steps > 10_000
    assert made.model == given.model
    assert made.data == given_data


# many processes beside other tests: the limit is for what hangs, not for what is slow
@pytest.mark.timeout(900)
def test_a_short_storm_loses_no_step_and_leaves_nothing_behind(make_spec, tmp_path):
    options = StormOptions(make_spec(), peers=3, seconds=30.0, seed=5, silence=5.0)
    options.every = {Disturbance.KILL: 20.0, Disturbance.LEAVE: 25.0, Disturbance.FREEZE: 30.0}
    seen = weather(options, tmp_path / "storm")
    lines, failures = describe(seen)
    assert not [failure for failure in failures if not failure.startswith(TIMINGS)], "\n".join(lines)
    assert {entry["kind"] for entry in seen.log} >= {"kill", "leave", "freeze"}
    assert seen.steps_committed > 0
    report = tmp_path / "storm.json"
    report.write_text(seen.report_json("test"))
    assert load_storm_report(report).steps_committed == seen.steps_committed
    assert json.loads(report.read_text())["events"]


@pytest.mark.heavy
def test_a_long_storm_costs_little_against_a_calm_run(tmp_path):
    from examples.run_demo import SPEC

    options = StormOptions(endless(SPEC, tmp_path), peers=4, seconds=300.0, seed=1)
    options.every = {Disturbance.KILL: 30.0}
    seen = weather(options, tmp_path / "storm")
    lines, failures = describe(seen)
    options.every = {}
    more_lines, more = compare(seen, weather(options, tmp_path / "calm"))
    assert not failures + more, "\n".join(lines + more_lines)
