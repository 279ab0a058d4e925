"""`peer bench --ranks`: what a node's ranks do together, in the form that such tables are published in."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from model import LeanAlbertConfig
from peer.bench_command import scaling_command
from peer.bench_plan import workload_of_file
from peer.bench_scaling import ScalingPlan, measure_scaling, parse_counts, run_of
from peer.scaling_plot import draw_scaling
from peer.scaling_report import PARTS, ScalingReport, ScalingRow
from swarm.errors import BadInput
from tests.peer.test_doctor import peer_command


def row(
    ranks: int, precision: str, rate: float, compute: float, exchange: float = 0.0, wait: float = 0.0
) -> ScalingRow:
    """A step in which each rank computes for so long; `exchange` is spent on sums, parameters and the update."""
    parts = dict.fromkeys(PARTS, 0.0) | {"compute": compute, "reduce": exchange / 2, "wait": wait}
    parts |= {"update": exchange / 4, "broadcast": exchange / 4}
    seconds = sum(parts.values())
    return ScalingRow(ranks, precision, 4, round(rate * seconds), seconds, parts, 3)


@pytest.fixture
def report() -> ScalingReport:
    """Of a machine on which one rank computes 100 samples in 10 s in fp32, and in 5 s in fp16."""
    rows = [row(1, "fp16", 20.0, 5.0), row(1, "fp32", 10.0, 10.0)]
    rows += [
        row(16, "fp16", 300.0, 5.0, exchange=1 / 3),
        row(16, "fp32", 20.0, 60.0, exchange=2.0, wait=18.0),
    ]
    return ScalingReport("Tesla V100", "gloo", 2, 128, 16, 1_000_000, rows)


def test_scaling_is_told_in_parts_of_the_ideal(report):
    text = "\n".join(report.lines())
    assert "15.00/16" in text  # 300 samples/s of 16 ranks that do 20 each alone
    assert "2.00/16" in text
    assert "14.78/16" in text  # NVIDIA's
    assert "15.00" in text.split("speed-up")[1]  # 300 in fp16 against 20 in fp32
    answer = report.as_json()
    assert answer["rows"][2]["efficiency"] == pytest.approx(15 / 16)
    for found in answer["rows"]:
        assert sum(found["shares"].values()) == pytest.approx(1)
    json.dumps(answer)


def test_a_reading_that_cannot_be_is_called_so(report):
    assert "more than the ideal" not in "\n".join(report.lines())
    report.rows[1] = row(1, "fp32", 0.5, 10.0)
    assert "more than the ideal" in "\n".join(report.lines())


def test_what_times_allow_is_what_exchanges_leave_of_the_ideal(report):
    single, shared = report.rows[0], report.rows[3]
    assert report.allowed_scaling(single) == pytest.approx(1)
    # the ranks' 80 s are as many samples as one rank computes in 10: two more for the exchange
    assert shared.samples / 16 == pytest.approx(100)
    assert report.allowed_scaling(shared) == pytest.approx(16 * 10 / 12)
    assert "share 2 cores" in "\n".join(report.lines())


def test_the_plot_is_a_picture_of_the_same_figures(report):
    picture = ElementTree.fromstring(draw_scaling(report))
    space = "{http://www.w3.org/2000/svg}"
    dots = [dot.findtext(f"{space}title") for dot in picture.iter(f"{space}circle")]
    assert dots[1] == "16 ranks in fp16: 300.00 samples/s, 15.00/16"
    heights = [float(dot.get("cy")) for dot in picture.iter(f"{space}circle")]
    assert heights[1] < heights[3] < heights[0]  # 15 above 2 above 1


def test_counts_of_ranks_are_read_or_refused():
    assert parse_counts("2,4,16") == [1, 2, 4, 16]
    for text in ("", "2;4", "0,1", "1,-2"):
        with pytest.raises(BadInput, match="--ranks"):
            parse_counts(text)


def test_more_gpus_than_there_are_and_unknown_precisions_are_refused(make_spec):
    workload = workload_of_file(make_spec())
    with pytest.raises(BadInput, match="visible here"):
        measure_scaling(ScalingPlan(workload, [1, 64], "cuda"), print)
    with pytest.raises(BadInput, match="--precision fp8"):
        measure_scaling(ScalingPlan(workload, [1], "cpu", ["fp8"]), print)


def test_a_model_that_no_run_trains_is_refused_in_words(tmp_path, make_spec):
    assert run_of(workload_of_file(make_spec())).model.hidden_size > 0
    LeanAlbertConfig(
        vocab_size=99, hidden_size=32, num_attention_heads=2, max_position_embeddings=64, adapter_dim=4
    ).save_pretrained(tmp_path)
    with pytest.raises(BadInput, match="adapter_dim = 4"):
        run_of(workload_of_file(tmp_path))


def test_a_plot_that_cannot_be_written_is_told_before_minutes_are_spent(make_spec, tmp_path):
    plan = ScalingPlan(workload_of_file(make_spec()), [1])
    with pytest.raises(BadInput, match="there is no folder"):
        scaling_command(plan, tmp_path / "missing" / "plot.svg", as_json=True)


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_real_ranks_are_measured_in_both_precisions(make_spec, tmp_path):
    arguments = ("--ranks", "2", "--precision", "fp16", "--precision", "fp32", "--accumulate", "2")
    answer = peer_command(
        *("bench", str(make_spec()), *arguments, "--micro-batch-size", "2", "--seconds", "1"),
        *("--device", "cpu", "--json", "--plot", str(tmp_path / "plot.svg")),
    )
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    measured = [(found["ranks"], found["precision"]) for found in report["rows"]]
    assert measured == [(1, "fp16"), (1, "fp32"), (2, "fp16"), (2, "fp32")]
    for found in report["rows"]:
        assert found["samples"] >= found["ranks"] * 2 * 2
        assert sum(found["parts"].values()) == pytest.approx(found["seconds"])
        assert found["parts"]["compute"] > 0
        alone = found["ranks"] == 1
        assert (found["parts"]["reduce"] == 0) == (found["parts"]["broadcast"] == 0) == alone
        assert found["steps"] >= 2
    ElementTree.parse(tmp_path / "plot.svg")
