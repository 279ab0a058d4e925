"""`peer bench` and the micro-batch size that `peer join` finds for itself."""

from __future__ import annotations

import json

import pytest

from model import LeanAlbertConfig
from peer import micro_batch
from peer.bench import BenchReport
from peer.bench_command import bench_command
from peer.bench_plan import workload_of_file
from peer.device_facts import DeviceFacts
from peer.join import Node, _join
from peer.micro_batch import Shape, found_shape
from peer.micro_batch_search import Trial
from peer.options import JoinOptions
from peer.reporting import Reporter
from swarm.errors import BadInput, OperationFailed
from swarm.spec import load_spec

FP32, BF16 = DeviceFacts("cpu", "cpu", "fp32"), DeviceFacts("cpu", "cpu", "bf16")


@pytest.mark.heavy
def test_measures_a_run_spec_and_recommends_a_setting(make_spec, capsys):
    bench_command(make_spec(), "cpu", None, False, None, 3.0, as_json=True)
    answer = json.loads(capsys.readouterr().out)
    assert answer["sequence_length"] == load_spec(make_spec()).data.sequence_length
    assert answer["trials"][0]["micro_batch_size"] == 1
    assert answer["recommended"] in answer["trials"]
    for trial in answer["trials"]:
        assert trial["samples_per_second"] == pytest.approx(trial["micro_batch_size"] / trial["seconds"])
        tokens = trial["samples_per_second"] * answer["sequence_length"]
        assert trial["tokens_per_second"] == pytest.approx(tokens)
    assert 0 <= answer["data_wait_share"] < 1
    assert answer["stopped"][0]["stopped"]


def test_a_checkpoint_folder_says_what_to_measure(tmp_path):
    config = LeanAlbertConfig(
        vocab_size=99, hidden_size=32, num_attention_heads=2, max_position_embeddings=64
    )
    config.save_pretrained(tmp_path)
    workload = workload_of_file(tmp_path)
    assert LeanAlbertConfig.from_dict(workload.config).vocab_size == 99
    assert workload.sequence_length == 64
    assert workload_of_file(tmp_path / "config.json", 16).sequence_length == 16


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "does not exist"), ("[", "not the configuration"), ('{"model_type": "bert"}', "bert")],
)
def test_what_is_no_configuration_is_told(tmp_path, content, words):
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(BadInput, match=words):
        workload_of_file(path)


def test_a_sequence_longer_than_the_model_is_told(make_spec):
    with pytest.raises(BadInput, match="--sequence-length 65"):
        workload_of_file(make_spec(), 65)


def trial(size: int, rate: float) -> Trial:
    return Trial(size, "fp32", False, size / rate, rate, rate, size)


def test_the_size_is_measured_once_and_remembered(make_spec, tmp_path, monkeypatch):
    spec, said, measured = load_spec(make_spec()), [], []

    def pretend(plan):
        measured.append(plan)
        return BenchReport("cpu", 16, [trial(1, 10), trial(2, 19)])

    monkeypatch.setattr(micro_batch, "run_bench", pretend)
    for _ in range(2):
        assert found_shape(spec, FP32, False, tmp_path, said.append) == Shape(2)
    assert len(measured) == 1
    assert found_shape(spec, BF16, False, tmp_path, said.append) == Shape(2)
    assert len(measured) == 2
    for path in (tmp_path / micro_batch.FOLDER).glob("*.json"):
        path.write_text("damaged")
    assert found_shape(spec, FP32, False, tmp_path, said.append) == Shape(2)
    assert len(measured) == 3


def test_a_machine_that_cannot_be_measured_takes_the_size_of_the_spec(make_spec, tmp_path, monkeypatch):
    def fail(plan):
        raise OperationFailed("not even one sample")

    monkeypatch.setattr(micro_batch, "run_bench", fail)
    said: list[str] = []
    shape = found_shape(load_spec(make_spec()), FP32, False, tmp_path, said.append)
    assert shape == Shape(load_spec(make_spec()).training.micro_batch_size)
    assert "not even one sample" in said[0]


def test_compiling_without_a_compiler_is_refused_in_words(make_spec, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BadInput, match=r"--compile needs a C\+\+ compiler"):
        bench_command(make_spec(), "cpu", None, True, None, 1.0, as_json=True)
    with pytest.raises(BadInput, match=r"--compile needs a C\+\+ compiler"):
        _join(JoinOptions([], device="cpu", compiled=True), Reporter(), Node(FP32))
