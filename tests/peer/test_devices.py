"""When CUDA is started, and in which process: after hivemind has forked, and before ranks connect.

There is no GPU here: what would start CUDA is replaced by what says that it was called.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch.distributed import HashStore

from peer import device as device_module
from peer.device import find_device
from peer.device_facts import DeviceFacts
from peer.node import computing, exchange
from peer.node.computing import build_micro_batches
from peer.node.exchange import open_group
from peer.node.family import Family
from peer.node.orders import Setup
from peer.options import JoinOptions
from swarm.errors import BadInput
from swarm.spec import load_spec
from tests.scenarios.swarm_under_test import ROOT

GPU = torch.device("cuda:1")

IMPORTS = """
import torch

def started(*_arguments):
    raise SystemExit("CUDA was started")

torch.cuda._is_compiled = lambda: True
torch._C._cuda_getDeviceCount = torch.cuda._lazy_init = started
import peer.node.rank_process, peer.node.measured_rank
"""


@pytest.fixture
def gpu(monkeypatch) -> list[str]:
    """A GPU that can be named; answers with what was done to it, in order."""
    done: list[str] = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: done.append(f"{device} is ours"))
    return done


def test_what_the_fork_server_imports_starts_no_cuda():
    answer = subprocess.run(
        [sys.executable, "-c", IMPORTS], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (answer.returncode, answer.stderr) == (0, "")


def test_a_peer_that_will_fork_has_its_gpu_looked_at_by_another_process(gpu, monkeypatch):
    monkeypatch.setattr(device_module, "choose_device", torch.device)
    monkeypatch.setattr(
        device_module,
        "inspect_device",
        lambda device, precision: DeviceFacts(str(device), f"seen by {os.getpid()}", precision or "fp16"),
    )
    found = find_device(None, None)
    assert (found.device, found.precision) == ("cuda", "fp16")
    assert found.description.startswith("seen by ")
    assert found.description != f"seen by {os.getpid()}"
    assert find_device("cuda:1", "fp32").device == "cuda:1"
    assert find_device("cpu", None).description == f"seen by {os.getpid()}"


def test_a_gpu_that_is_not_there_is_told_in_words(gpu):
    with pytest.raises(BadInput, match="--device cuda cannot be used"):
        find_device(None, None)
    with pytest.raises(BadInput, match="--device cuda:7 cannot be used"):
        find_device("cuda:7", None)


def test_a_rank_takes_its_gpu_before_it_builds_a_model_on_it(
    gpu, monkeypatch, make_spec, prepared_data, tmp_path
):
    class Built(Exception):
        pass

    def build(*_arguments: object, **_settings: object) -> None:
        gpu.append("a model")
        raise Built

    monkeypatch.setattr(computing, "build_model", build)
    setup = Setup(load_spec(make_spec()).canonical_json().decode(), str(prepared_data), "peer")
    facts = DeviceFacts(str(GPU), "GPU", "fp16")
    with pytest.raises(Built):
        build_micro_batches(setup, JoinOptions([], cache_dir=tmp_path), facts, Family(HashStore(), 1, 2), {})
    assert gpu == ["cuda:1 is ours", "a model"]


def test_gpus_connect_by_nccl_each_on_its_own_and_through_loopback(gpu, monkeypatch):
    asked = {}

    def connect(backend: str, **settings: object) -> None:
        asked.update(settings, backend=backend)

    monkeypatch.setattr(exchange.dist, "init_process_group", connect)
    monkeypatch.delenv("NCCL_SOCKET_IFNAME", raising=False)
    open_group(HashStore(), GPU, rank=1, ranks=2)
    assert (asked["backend"], asked["device_id"], asked["rank"], asked["world_size"]) == ("nccl", GPU, 1, 2)
    assert os.environ.pop("NCCL_SOCKET_IFNAME") == "lo"
