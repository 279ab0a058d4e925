"""The ranks of a node make the step that plain PyTorch would make, whoever of them computed which part of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from peer.accumulator import Accumulator
from peer.loss_scale import LossScale
from peer.node.devices import devices_for
from swarm.errors import BadInput
from swarm.spec import load_spec
from tests.peer.test_global_step import assert_same, plain_pytorch, saved
from tests.scenarios.line_process import LineProcess
from tests.scenarios.step_participant import MICRO_BATCH

# fp32 sums in another order; LAMB's trust ratio divides by norms of the order of 1
SAME_UPDATE = {"rtol": 2e-4, "atol": 2e-6}
EXACT = {"rtol": 0, "atol": 0}
SEEDS = list(range(10, 26))


@pytest.fixture(scope="module")
def rank_steps() -> Iterator[LineProcess]:
    """One process whose fork server starts all ranks of this file."""
    process = LineProcess("tests.scenarios.rank_steps", deadline=240.0)
    yield process
    # not killed: Python's cleaner of shared memory is in its group
    assert process.process.stdin is not None
    process.process.stdin.close()
    process.process.wait(60)


@pytest.fixture
def make_steps(rank_steps, tmp_path, make_spec) -> Callable:
    """Runs two steps with a rank per list of seeds; returns the spec, and parameters and facts of every rank."""

    def make(*seeds: list[int], **command: object) -> tuple:
        spec_path = make_spec(training={"target_batch_size": 4})
        rank_steps.tell(folder=str(tmp_path), spec=str(spec_path), ranks=seeds, steps=2, **command)
        assert rank_steps.hear() == {"ended": True}
        loaded = [load(tmp_path / f"rank-{rank}.pt") for rank in range(len(seeds))]
        return load_spec(spec_path), [tensors for tensors, _ in loaded], [facts for _, facts in loaded]

    return make


def load(path: Path) -> tuple[list[torch.Tensor], dict]:
    return torch.load(path, weights_only=True)


HEAVY = pytest.mark.heavy


@pytest.mark.parametrize(
    "ranks", [pytest.param(1, marks=HEAVY), 2, pytest.param(4, marks=HEAVY), pytest.param(16, marks=HEAVY)]
)
def test_ranks_make_the_update_of_one_process_with_the_whole_batch(make_steps, ranks):
    share = len(SEEDS) // ranks
    spec, tensors, facts = make_steps(*(SEEDS[i * share : (i + 1) * share] for i in range(ranks)))
    expected = plain_pytorch(spec, SEEDS)
    assert_same(tensors[0], expected, SAME_UPDATE)
    for own in tensors[1:]:
        assert_same(own, tensors[0], EXACT)
    assert facts[0]["samples"] == [len(SEEDS) * MICRO_BATCH] * 2
    assert facts[0]["computed"] == (ranks - 1) * share * MICRO_BATCH * 2


@pytest.mark.heavy
@pytest.mark.timeout(900)
def test_a_node_and_a_peer_alone_make_the_update_of_one_process_with_the_whole_batch(
    rank_steps, tmp_path, make_spec
):
    spec_path = make_spec(
        averaging={"gradient_compression": "none"},
        training={"target_batch_size": 32},
        leases={"period": 0.5, "expiration": 30.0},
    )
    solo = LineProcess("tests.scenarios.step_participant", deadline=240.0)
    try:
        solo.tell(folder=str(tmp_path), spec=str(spec_path), initial_peers=[])
        contact = solo.hear()["addresses"]
        ranks = [SEEDS[:2], SEEDS[2:4], SEEDS[4:5]]
        rank_steps.tell(
            folder=str(tmp_path), spec=str(spec_path), ranks=ranks, steps=2, initial_peers=contact
        )
        assert rank_steps.hear() == {"entered": True}
        for step in (1, 2):
            solo.tell(compute=[seed + 100 * step for seed in SEEDS[5:8]])
            solo.hear()
            solo.tell(step=2)
            assert solo.hear() == {"made": True, "group": 2, "step": step}
        assert rank_steps.hear() == {"ended": True}
        theirs = saved(solo, tmp_path / "solo.pt")
    finally:
        solo.kill_group()
    tensors, facts = load(tmp_path / "rank-0.pt")
    assert (facts["groups"], facts["samples"]) == ([2, 2], [5 * MICRO_BATCH] * 2)
    expected = plain_pytorch(load_spec(spec_path), SEEDS[:8])
    assert_same(tensors, expected, SAME_UPDATE)
    assert_same(theirs, expected, SAME_UPDATE)
    for rank in (1, 2):
        assert_same(load(tmp_path / f"rank-{rank}.pt")[0], tensors, EXACT)


def test_uneven_ranks_weigh_as_much_as_they_computed(make_steps):
    spec, tensors, _facts = make_steps(SEEDS[:3], SEEDS[3:8], [])
    assert_same(tensors[0], plain_pytorch(spec, SEEDS[:8]), SAME_UPDATE)
    assert_same(tensors[2], tensors[0], EXACT)


def test_what_is_not_finite_stays_in_its_rank(make_steps):
    spec, tensors, facts = make_steps(SEEDS[:4], SEEDS[4:6], poisoned=1)
    assert facts[0]["samples"] == [4 * MICRO_BATCH] * 2
    assert_same(tensors[0], plain_pytorch(spec, SEEDS[:4]), SAME_UPDATE)


def test_ranks_agree_on_the_lowest_loss_scale_and_the_update_does_not_depend_on_it(make_steps):
    spec, tensors, facts = make_steps(SEEDS[:2], SEEDS[2:4], SEEDS[4:6], scales=[1024.0, 64.0, 4096.0])
    assert [fact["scale"] for fact in facts] == [64.0] * 3
    assert_same(tensors[0], plain_pytorch(spec, SEEDS[:6]), SAME_UPDATE)


def test_a_gradient_that_overflows_is_not_added_and_lowers_the_scale():
    parameter = torch.nn.Parameter(torch.zeros(2))
    accumulator = Accumulator([parameter], LossScale(2.0**127))
    assert accumulator.scale is not None
    assert not accumulator.add((parameter * torch.tensor([1.0, 3.0])).sum(), samples=4)
    assert (accumulator.samples, accumulator.scale.value, accumulator.scale.overflows) == (0, 2.0**126, 1)
    accumulator.scale.agree(8.0)
    for _ in range(2):
        assert accumulator.add((parameter * torch.tensor([1.0, 3.0])).sum(), samples=4)
    accumulator.scale.agree(2.0**127)
    assert not accumulator.add((parameter * torch.tensor([1.0, 3.0])).sum(), samples=4)
    buffers, taken = [torch.empty(2)], accumulator.take()
    assert taken.mean_into(buffers)
    assert (buffers[0].tolist(), taken.samples) == ([1.0, 3.0], 8)


def test_devices_of_the_ranks(monkeypatch):
    assert devices_for("cpu", None) == ["cpu"]
    assert devices_for("cpu", 3) == ["cpu"] * 3
    assert devices_for("cuda:1", None) == ["cuda:1"]
    with pytest.raises(BadInput, match="--ranks 2 on the one device cuda:1"):
        devices_for("cuda:1", 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(BadInput, match="--ranks 64: no GPU is visible here; give --device cpu"):
        devices_for("cuda", 64)
    with pytest.raises(BadInput, match="--ranks 100000: each takes memory"):
        devices_for("cpu", 100_000)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices_for(None, None) == devices_for("cuda", 2) == ["cuda:0", "cuda:1"]
    with pytest.raises(BadInput, match="--ranks 3: only 2 GPUs are visible here; give --ranks 2"):
        devices_for(None, 3)
