"""Calibration files, storm reports, comparison, sweeps, plots and the command line."""

from __future__ import annotations

import json
import re
from xml.etree import ElementTree

import pytest
import typer
from typer.main import get_command

from coordinator.simulation.calibration import (
    Calibration,
    MeasuredRound,
    load_calibration,
)
from coordinator.simulation.charts import Line, line_chart
from coordinator.simulation.churn import draw_script
from coordinator.simulation.command import simulate_command
from coordinator.simulation.compare import compare, comparison_table
from coordinator.simulation.options import Churn, SimulationOptions
from coordinator.simulation.sizes import transfer_sizes
from coordinator.simulation.storm_report import StormReport
from coordinator.simulation.timings import crowding, fit
from data_prep.command_line import exit_code_of
from swarm.spec import RunSpec
from tests.coordinator.simulation.small_swarms import ONE_SECOND, small_spec


def simulate(*arguments: object) -> int:
    app = typer.Typer()
    app.command()(simulate_command)
    words = [str(argument) for argument in arguments]
    return exit_code_of(lambda: get_command(app)(words, standalone_mode=False))


@pytest.fixture
def spec_path(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(
        'name = "small"\n[model]\nhidden_size = 32\nintermediate_size = 64\nnum_hidden_layers = 1\n'
        "num_attention_heads = 2\n[data]\nvocab_size = 256\nsequence_length = 16\n"
        "[training]\ntarget_batch_size = 4096\n"
    )
    return path


def measured(group_size: int, size: float, cores: int) -> MeasuredRound:
    busy = crowding(group_size, cores)
    return MeasuredRound(
        kind="gradients",
        group_size=group_size,
        bytes=size,
        seconds_matchmaking=0.1 + 0.02 * (group_size - 1) * busy,
        seconds_allreduce=0.05 + busy * (0.01 * (group_size - 1) + 2e-7 * size),
    )


def test_fitting_finds_the_terms_again_and_takes_the_crowding_out():
    rounds = [measured(group, size, cores=2) for group in range(2, 7) for size in (1e5, 1e6, 1e7)]
    timings = fit(Calibration(rounds=tuple(rounds), cores=2, shared_machine=True))
    assert timings.exchange("gradients", 6, 1e6, float("inf")) == pytest.approx(0.05 + 0.05 + 0.2, rel=0.02)
    shared = timings.on_shared_machine(2)
    assert shared.exchange("gradients", 6, 1e6, float("inf")) == pytest.approx(0.05 + 0.75, rel=0.02)
    assert timings.handshake(6) == pytest.approx(0.2, rel=0.02)


def test_a_slow_link_sets_the_time_of_a_round():
    """2 (n - 1) / n copies of 10 MB at 100 Mbit/s, of which 85 % are reached."""
    assert ONE_SECOND.exchange("gradients", 4, 1e7, 100.0) == pytest.approx(1.0 + 1.5 * 0.8 / 0.85)


def test_the_shipped_calibration_is_of_real_rounds_and_plausible():
    shipped = load_calibration()
    assert shipped.command.startswith("python -m benchmarks.round_times")
    assert {one.group_size for one in shipped.rounds} >= {2, 3, 4}
    timings = fit(shipped)
    assert 0.0 < timings.exchange("gradients", 2, 1e6, float("inf")) < 5.0


def test_the_model_s_waits_are_those_of_real_rounds_with_somebody_missing():
    """Alone: until matchmaking gives up; absent: the matchmaking time; killed: at most one chunk's timeout."""
    for one in load_calibration().recoveries:
        expected = {
            "alone": one.matchmaking_time + 2 * one.request_timeout,
            "absent": one.matchmaking_time,
            "killed": one.next_chunk_timeout,
        }[one.kind]
        assert one.seconds < expected + 1.0
        assert one.seconds > expected or one.kind == "killed"


def test_sizes_follow_the_codecs():
    sizes = transfer_sizes(RunSpec(name="x"))
    assert sizes.parameters == 4 * sizes.values
    assert sizes.state == 3 * sizes.parameters
    assert sizes.values < sizes.gradients < 1.2 * sizes.values


def storm_of(steps: int, interval: float) -> dict:
    """A storm of two peers that made a step every so many seconds."""
    return {
        "spec": small_spec().model_dump(mode="json"),
        "seconds": 5 + steps * interval + 1,
        "peers": [{"name": name, "samples_per_second": 50.0} for name in ("a", "b")],
        "events": [{"t": 0.0, "kind": "start", "peer": name} for name in ("a", "b")]
        + [{"t": 5.0, "kind": "synced", "peer": name} for name in ("a", "b")],
        "steps": [
            {
                "t": 5 + number * interval,
                "peer": name,
                "global_step": number,
                "samples": 500,
                "group": 2,
                "seconds": {"compute": 10.0, "total": interval},
            }
            for number in range(1, steps + 1)
            for name in ("a", "b")
        ],
        "steps_committed": steps,
        "samples_computed": 1000 * steps,
        "samples_in_steps": 1000 * steps,
        "loss_of_the_calm_run": 1.0,
    }


@pytest.mark.parametrize(("interval", "agrees"), [(10.5, True), (25.0, False)])
def test_a_comparison_says_where_model_and_storm_agree(interval, agrees):
    calibration = Calibration(
        rounds=tuple(measured(group, size, cores=1000) for group in (2, 3) for size in (1e4, 1e5))
    )
    figures = {
        one.name: one for one in compare(StormReport.model_validate(storm_of(20, interval)), calibration)
    }
    steps = figures["global steps"]
    assert (abs(steps.simulated - steps.real) <= 1) is agrees
    assert figures["failed rounds"].agrees
    assert "global steps" in comparison_table(list(figures.values()))


def test_a_storm_is_compared_on_the_command_line(tmp_path, capsys):
    path = tmp_path / "storm.json"
    path.write_text(json.dumps(storm_of(5, 10.5)))
    assert simulate("--compare", path, "--json") == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert {"name", "real", "simulated", "lowest", "highest", "agrees"} == set(figures[0])


def test_one_simulation_as_json_and_as_a_page_that_needs_nothing_else(spec_path, tmp_path, capsys):
    page = tmp_path / "plot.html"
    assert simulate(spec_path, "--peers", 5, "--hours", 0.5, "--json", "--plot", page) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["global_steps"] > 0
    assert len(report["timeline"]) == 240
    assert_self_contained(page.read_text())


def test_a_sweep_is_a_table_and_a_page(spec_path, tmp_path, capsys):
    page = tmp_path / "plot.html"
    sweeps = ("--sweep", "target_batch_size=2048,8192", "--sweep", "averaging.matchmaking_time=5,10")
    assert simulate(spec_path, "--peers", 5, "--hours", 0.5, *sweeps, "--plot", page) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 2 + 4
    assert "matchmaking_time" in table[0]
    assert_self_contained(page.read_text())


def assert_self_contained(page: str) -> None:
    assert not re.search(r"https?:|src=|href=|@import", page)
    pictures = re.findall(r"<svg.*?</svg>", page)
    assert len(pictures) >= 4
    for picture in pictures:
        ElementTree.fromstring(picture)


def test_a_chart_has_gaps_where_there_is_no_value():
    chart = line_chart([Line("a", [(0, 1.0), (1, None), (2, 3.0), (3, 4.0)])], x_label="x")
    assert chart.count("<polyline") == 2


@pytest.mark.parametrize(
    ("options", "word"),
    [
        (("--peers", 0), "--peers"),
        (("--hours", -1), "--hours"),
        (("--polite", 2), "--polite"),
        (("--speeds", "fast"), "--speeds"),
        (("--speeds", "200-20"), "--speeds"),
        (("--mean-stay", "soon"), "--mean-stay"),
        (("--sweep", "learning_speed=1"), "learning_speed"),
        (("--sweep", "target_batch_size=many"), "--sweep"),
        (("--sweep", "target_batch_size=0"), "target_batch_size"),
        (("--sweep", "expiration=0.5"), "expiration"),
        (("--calibration", "nowhere.json"), "nowhere.json"),
        (("--churn", "tidal"), "'--churn': 'tidal' is not one of"),
    ],
)
def test_bad_options_are_named_in_one_line(spec_path, capsys, options, word):
    assert simulate(spec_path, *options) == 2
    message = capsys.readouterr().err
    assert word in message
    assert message.count("\n") == 1


@pytest.mark.parametrize("content", ["", "[]", '{"rounds": []}', '{"rounds": [{"kind": "x"}], "cores": 0}'])
def test_a_damaged_calibration_or_storm_is_bad_input(spec_path, tmp_path, capsys, content):
    path = tmp_path / "damaged.json"
    path.write_text(content)
    assert simulate(spec_path, "--calibration", path) == 2
    assert simulate("--compare", path) == 2
    assert capsys.readouterr().err.count("damaged.json") == 2


def test_a_storm_that_names_unknown_peers_is_bad_input(tmp_path, capsys):
    path = tmp_path / "storm.json"
    storm = storm_of(2, 10.0)
    path.write_text(json.dumps({**storm, "events": [{"t": 1.0, "kind": "kill", "peer": "ghost"}]}))
    assert simulate("--compare", path) == 2
    assert "ghost" in capsys.readouterr().err


def test_a_page_that_cannot_be_written_is_a_failed_operation(spec_path, tmp_path, capsys):
    assert simulate(spec_path, "--peers", 2, "--hours", 0.1, "--plot", tmp_path / "no" / "plot.html") == 1
    assert "plot.html" in capsys.readouterr().err


def test_the_same_seed_draws_the_same_peers_whatever_is_swept():
    options = SimulationOptions(peers=30, hours=5.0, churn=Churn.POISSON, mean_stay=1800.0, seed=5)
    assert draw_script(options) == draw_script(options)
    assert draw_script(options) != draw_script(SimulationOptions(**{**vars(options), "seed": 6}))
