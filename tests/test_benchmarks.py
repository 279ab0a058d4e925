"""The benchmarks that need a GPU or minutes run here in small, so that they do not rot."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a benchmark in this process with these arguments; answers with what it printed."""
    import torch

    threads = torch.get_num_threads()

    def start(name, *arguments):
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
        runpy.run_module(f"benchmarks.{name}", run_name="__main__")
        return capsys.readouterr().out

    yield start
    torch.set_num_threads(threads)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.heavy
def test_the_gpu_benchmark_runs_in_small_on_a_cpu(run, tmp_path):
    shown = run("gpu_step", "--small", "--json", tmp_path / "figures.json")
    figures = json.loads((tmp_path / "figures.json").read_text())
    (one,) = figures["steps"]
    assert one["tokens_per_second"] > 0
    assert one["mfu"] is None  # no data sheet for a CPU
    assert one["of_matmul"] > 0
    assert [step["checkpointed"] for step in figures["whole_step"]] == [False, True]
    assert "8-bit LAMB on the host" in shown


@pytest.mark.heavy
def test_a_rank_of_a_gpu_is_compared_and_profiled_in_small_on_a_cpu(tmp_path):
    """A process of its own: it opens a process group."""
    written = ("--json", str(tmp_path / "figures.json"), "--trace", str(tmp_path / "trace.json"))
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_rank", "--small", *written],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    figures = json.loads((tmp_path / "figures.json").read_text())
    differs = {way["way"]: way["difference_of_gradient"] for way in figures["ways"]}
    # the scale, ours or PyTorch's, leaves no trace in the gradient; what remains is the rounding of half precision
    assert differs["fp32"] == 0
    assert 0 < differs["fp16"] < differs["bf16"] < 0.05
    assert differs["fp16"] == pytest.approx(differs["fp16, GradScaler"], rel=0.2)
    assert min(figures["parts_in_microseconds"].values()) > 0
    assert len(figures["parts_in_microseconds"]) == 4
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]


@pytest.mark.heavy
def test_packing_is_compared_with_padding(run):
    shown = run(
        "packed_documents", "--hidden", 64, "--layers", 1, "--documents", 6, "--rows", 2, "--rounds", 1
    )
    for name in ("padded", "packed, dense mask", "packed"):
        assert f"| {name} " in shown


@pytest.mark.heavy
def test_ranks_are_compared_with_distributed_data_parallel():
    """A process of its own: its fork server would outlive the test."""
    shape = ("--hidden", "64", "--layers", "1", "--length", "16", "--micro-batches", "4", "--rounds", "1")
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.node_ranks", *shape],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    figures = json.loads(answer.stdout.splitlines()[-1])
    needed, sent = figures["bytes_needed"], figures["bytes"]
    assert (
        needed["DDP every micro-batch"]
        == 4 * needed["once a step (ours)"]
        == 4 * needed["DDP with no_sync"]
        > 0
    )
    for name, at_least in needed.items():
        # beside the tensors, ranks exchange some words to meet
        assert at_least <= sent[name] < 1.6 * at_least + 20_000
    assert sent["DDP every micro-batch"] > 2.5 * sent["once a step (ours)"]
