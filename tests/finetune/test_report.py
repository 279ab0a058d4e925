"""The table of all runs: means and deviations, baselines and published figures, as text, JSON and HTML."""

from __future__ import annotations

import json
import statistics
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from finetune.published import PUBLISHED
from finetune.report import build_report, cell_text
from finetune.run_directory import write_json
from finetune.summary import aggregate
from finetune.tasks import SUPERGLUE, TASKS


def summary(task: str, model: str, mean: float, std: float | None = None) -> dict:
    names = TASKS[task].metrics
    value = {"mean": mean, "std": std}
    baselines = {
        name: {TASKS[task].reported: dict.fromkeys(names, floor)}
        for name, floor in (("majority", 0.1), ("tfidf", 0.2))
    }
    return {
        "task": task,
        "model": model,
        "metrics": list(names),
        "reported": TASKS[task].reported,
        "scores": {TASKS[task].reported: dict.fromkeys(names, value)},
        "main": value,
        "baselines": baselines,
        "seeds": [{"seed": 0}],
        "examples": {"test": 1},
    }


@pytest.fixture
def runs(tmp_path):
    for number, task in enumerate(SUPERGLUE):
        name = task.layout.task
        write_json(tmp_path / "runs" / name / "summary.json", summary(name, "ours<&>", number / 10, 0.01))
    write_json(tmp_path / "runs" / "second" / "summary.json", summary("TERRa", "other", 0.5))
    return tmp_path / "runs"


def test_means_and_sample_deviations_over_seeds():
    seeds = [{"validation": {"f1": value}} for value in (0.1, 0.2, 0.6)]
    expected = {"mean": pytest.approx(0.3), "std": pytest.approx(statistics.stdev([0.1, 0.2, 0.6]))}
    assert aggregate(seeds) == {"validation": {"f1": expected}}
    assert aggregate(seeds[:1]) == {"validation": {"f1": {"mean": 0.1, "std": None}}}


@pytest.mark.parametrize("system", [system for system in PUBLISHED if system.overall], ids=lambda s: s.name)
def test_published_overall_figures_are_the_means_of_the_tasks(system):
    figures = [statistics.fmean(system.tasks[task.layout.task]) for task in SUPERGLUE]
    assert statistics.fmean(figures) == pytest.approx(system.overall, abs=0.0011)
    for task in SUPERGLUE:
        assert len(system.tasks[task.layout.task]) == len(task.metrics)


def test_the_table_holds_models_baselines_and_published_systems(runs):
    report = build_report(runs)
    names = [(row.name, row.kind) for row in report.rows]
    assert names[:4] == [
        ("ours<&>", "ours"),
        ("other", "ours"),
        ("majority", "baseline"),
        ("tfidf", "baseline"),
    ]
    assert ("RuLeanALBERT", "published") in names
    assert report.tasks == tuple(task.layout.task for task in SUPERGLUE)


def test_the_overall_score_needs_all_nine_tasks(runs):
    ours, other = build_report(runs).rows[:2]
    assert ours.overall == pytest.approx(0.4)
    assert other.overall is None


def test_cells_show_both_metrics_and_the_deviation(runs):
    rows = {row.name: row for row in build_report(runs).rows}
    assert cell_text(rows["ours<&>"].cells["RCB"]) == "0.100 / 0.100 ± 0.010"
    assert cell_text(rows["other"].cells["TERRa"]) == "0.500"
    assert cell_text(rows["RuBERT-base"].cells["RCB"]) == "0.333 / 0.509"
    assert cell_text(None) == ""


def test_two_runs_of_one_model_and_task_are_two_rows(runs):
    write_json(runs / "third" / "summary.json", summary("TERRa", "other", 0.7))
    rows = {row.name: row for row in build_report(runs).rows}
    assert rows["other"].cells["TERRa"].mean == 0.5
    assert rows["other (third)"].cells["TERRa"].mean == 0.7


class Tags(HTMLParser):
    """Fails on tags that are not closed in order."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_command_writes_text_json_and_a_page_with_a_plot(finetune, runs, tmp_path):
    answer = finetune("report", "--runs", runs, "--output", tmp_path / "report")
    assert answer.code == 0
    assert "hidden test sets" in answer.out
    assert (tmp_path / "report" / "report.txt").read_text() == answer.out
    stored = json.loads((tmp_path / "report" / "report.json").read_text())
    assert stored["rows"][0]["cells"]["RCB"] == {
        "mean": 0.1,
        "std": 0.01,
        "metrics": {"f1": 0.1, "accuracy": 0.1},
        "seeds": 1,
    }
    page = (tmp_path / "report" / "report.html").read_text()
    tags = Tags()
    tags.feed(page)
    assert not tags.open
    assert "ours<&>" in tags.text  # escaped in the source, read as it is
    drawing = page[page.index("<svg") : page.index("</svg>") + 6]
    svg = ElementTree.fromstring(drawing)
    circles = svg.findall("{http://www.w3.org/2000/svg}circle")
    assert len(circles) == len(SUPERGLUE) + 1
    assert "http" not in page.replace("http://www.w3.org/2000/svg", "")


def test_json_alone_on_stdout(finetune, runs):
    answer = finetune("report", "--runs", runs, "--json")
    assert {row["name"] for row in answer.json["rows"]} >= {"ours<&>", "human"}


def test_a_damaged_summary_is_named(finetune, runs):
    (runs / "RCB" / "summary.json").write_text("{")
    answer = finetune("report", "--runs", runs)
    assert answer.code == 2
    assert "RCB/summary.json is damaged" in answer.error
