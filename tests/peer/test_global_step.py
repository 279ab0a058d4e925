"""A collaborative step is the step that plain PyTorch would make, whoever computed which part of the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from model.lamb import Lamb, parameter_groups
from swarm.spec import RunSpec, load_spec
from tests.scenarios.line_process import LineProcess
from tests.scenarios.step_participant import MICRO_BATCH, loss_of, new_state

# fp32 sums in another order; LAMB's trust ratio divides by norms of the order of 1
SAME_UPDATE = {"rtol": 2e-4, "atol": 2e-6}
# after uncompressed parameter averaging only rounding is left between peers
SAME_PARAMETERS = {"rtol": 0, "atol": 1e-6}

SEEDS = list(range(10, 18))


@pytest.fixture
def make_steps(tmp_path, make_spec) -> Iterator[Callable]:
    """Runs `steps` global steps with one process per list of seeds; returns the spec and everyone's final tensors."""
    processes: list[LineProcess] = []

    def make(
        *seeds: list[int], codec: str, steps: int = 2, rank: int = 32, **model: int
    ) -> tuple[RunSpec, list[list[torch.Tensor]]]:
        averaging = {"gradient_compression": codec, "rank": rank}
        spec_path = make_spec(averaging=averaging, model=model, training={"target_batch_size": 32})
        processes.extend(LineProcess("tests.scenarios.step_participant") for _ in seeds)
        contact: list[str] = []
        for process in processes:
            process.tell(folder=str(tmp_path), spec=str(spec_path), initial_peers=contact)
            contact = contact or process.hear()["addresses"]
        for process in processes[1:]:
            process.hear()
        for step in range(1, steps + 1):
            for process, own in zip(processes, seeds, strict=True):
                process.tell(compute=[seed + 100 * step for seed in own])
            for process in processes:
                process.hear()
            for process in processes:
                process.tell(step=len(processes))
            for process in processes:
                assert process.hear() == {"made": True, "group": len(processes), "step": step}
        return load_spec(spec_path), [
            saved(process, tmp_path / f"{i}.pt") for i, process in enumerate(processes)
        ]

    yield make
    for process in processes:
        process.kill_group()


@pytest.fixture
def two_participants(request, tmp_path, make_spec) -> Iterator[tuple]:
    """The spec and two processes at step 0 that see each other; a parameter is what its `averaging` has besides."""
    spec_path = make_spec(
        averaging={"gradient_compression": "none", **getattr(request, "param", {})},
        training={"target_batch_size": 16},
        leases={"period": 0.5, "expiration": 30.0},
    )
    processes = [LineProcess("tests.scenarios.step_participant") for _ in range(2)]
    contact: list[str] = []
    for process in processes:
        process.tell(folder=str(tmp_path), spec=str(spec_path), initial_peers=contact)
        process.hello = process.hear()
        contact = contact or process.hello["addresses"]
    yield load_spec(spec_path), *processes
    for process in processes:
        process.kill_group()


def saved(process: LineProcess, path: Path) -> list[torch.Tensor]:
    process.tell(save=str(path))
    process.hear()
    return torch.load(path, weights_only=True)[2]


def plain_pytorch(spec: RunSpec, seeds: list[int], steps: int = 2) -> list[torch.Tensor]:
    """The same steps by a loop that knows nothing of swarms."""
    state = new_state(spec)
    training = spec.training
    groups = parameter_groups(state.model, training.weight_decay)
    optimizer = Lamb(
        groups, lr=0.0, betas=training.betas, eps=training.eps, max_grad_norm=training.max_grad_norm
    )
    for step in range(1, steps + 1):
        for seed in seeds:
            (loss_of(state, seed + 100 * step) / len(seeds)).backward()
        for group in optimizer.param_groups:
            group["lr"] = spec.learning_rate_at(step - 1)
        optimizer.step()
        optimizer.zero_grad()
    return [parameter.detach() for parameter in state.parameters]


def assert_same(ours: list[torch.Tensor], expected: list[torch.Tensor], tolerance: dict) -> None:
    for index, (own, other) in enumerate(zip(ours, expected, strict=False)):
        torch.testing.assert_close(own, other, **tolerance, msg=lambda text, i=index: f"tensor {i}: {text}")


def test_one_peer_steps_like_plain_pytorch(make_steps):
    spec, (alone,) = make_steps(SEEDS, codec="none")
    assert_same(alone, plain_pytorch(spec, SEEDS), SAME_UPDATE)


def test_two_peers_make_the_update_of_one_with_twice_the_batch_and_end_equal(make_steps):
    spec, (first, second) = make_steps(SEEDS[:3], SEEDS[3:], codec="none")
    expected = plain_pytorch(spec, SEEDS)
    assert_same(first, expected, SAME_UPDATE)
    assert_same(second, expected, SAME_UPDATE)
    assert_same(first[: len(expected)], second, SAME_PARAMETERS)


@pytest.mark.heavy
def test_four_peers_make_the_update_of_one_with_four_times_the_batch(make_steps):
    spec, peers = make_steps(SEEDS[:2], SEEDS[2:4], SEEDS[4:6], SEEDS[6:], steps=1, codec="none")
    expected = plain_pytorch(spec, SEEDS, steps=1)
    for tensors in peers:
        assert_same(tensors, expected, SAME_UPDATE)


def test_eight_bit_gradients_move_both_peers_together(make_steps):
    """Both end at the same parameters, near those of the exact step, and far from where they began."""
    wide_enough_for_8_bits = {"hidden_size": 128, "intermediate_size": 512}
    spec, (first, second) = make_steps(SEEDS[:4], SEEDS[4:], codec="8bit", **wide_enough_for_8_bits)
    expected = plain_pytorch(spec, SEEDS)
    start = new_state(spec).parameters
    assert_same(first[: len(expected)], second, SAME_PARAMETERS)
    moved = torch.cat([(new - old).flatten() for new, old in zip(expected, start, strict=True)])
    error = torch.cat([(own - other).flatten() for own, other in zip(first, expected, strict=False)])
    assert moved.norm() > 0
    assert error.norm() < 0.1 * moved.norm()


def test_low_rank_gradients_move_both_peers_together(make_steps):
    """Two exchanges with factors instead of matrices: both end equal, and went roughly where the exact step goes."""
    large_enough_for_factors = {"hidden_size": 128, "intermediate_size": 512}
    spec, (first, second) = make_steps(
        SEEDS[:4], SEEDS[4:], codec="low_rank", rank=16, steps=1, **large_enough_for_factors
    )
    expected = plain_pytorch(spec, SEEDS, steps=1)
    start = new_state(spec).parameters
    assert_same(first[: len(expected)], second, SAME_PARAMETERS)
    moved = torch.cat([(new - old).detach().flatten() for new, old in zip(expected, start, strict=True)])
    went = torch.cat([(new - old).detach().flatten() for new, old in zip(first, start, strict=False)])
    assert float(torch.nn.functional.cosine_similarity(moved, went, dim=0)) > 0.5


def test_a_peer_without_samples_takes_the_others_step(make_steps):
    spec, (first, second) = make_steps(SEEDS, [], steps=1, codec="none")
    expected = plain_pytorch(spec, SEEDS, steps=1)
    assert_same(first, expected, SAME_UPDATE)
    assert_same(second, expected, SAME_UPDATE)


def test_what_a_departing_peer_hands_over_is_in_the_step(two_participants, tmp_path):
    spec, leaver, heir = two_participants
    for process, own in ((leaver, SEEDS[:3]), (heir, SEEDS[3:])):
        process.tell(compute=[seed + 100 for seed in own])
        process.hear()
    heir.tell(take_over=2)
    assert heir.hear() == {"ready": True}
    leaver.tell(hand_over=30)
    assert leaver.hear() == {"samples": 3 * MICRO_BATCH, "heir": heir.hello["peer_id"], "left": 0}
    assert heir.hear() == {"samples": 3 * MICRO_BATCH}
    heir.tell(step=1)
    assert heir.hear() == {"made": True, "group": 1, "step": 1}
    assert_same(saved(heir, tmp_path / "heir.pt"), plain_pytorch(spec, SEEDS, steps=1), SAME_UPDATE)


def test_a_dead_heir_takes_nothing_and_the_samples_stay(two_participants):
    """Its lease is still alive, so it is asked; the next one could be, and nothing breaks."""
    _spec, leaver, heir = two_participants
    leaver.tell(compute=SEEDS[:2])
    leaver.hear()
    heir.tell(take_over=2)
    assert heir.hear() == {"ready": True}
    heir.kill_group()
    leaver.tell(hand_over=30)
    answer = leaver.hear()
    assert answer["heir"] is None or answer["heir"].startswith("no answer")
    assert answer["left"] == 2 * MICRO_BATCH


@pytest.mark.parametrize("two_participants", [{"overlap": True}], indirect=True)
def test_what_is_computed_beside_a_step_is_in_the_next_one(two_participants, tmp_path):
    """Its gradient is of the parameters before the step; both peers end equal, and nothing is counted twice."""
    spec, *peers = two_participants
    for process, own in zip(peers, (SEEDS[:2], SEEDS[2:4]), strict=True):
        process.tell(compute=own)
        process.hear()
    for process in peers:
        process.tell(begin=2)
    for process, own in zip(peers, (SEEDS[4:6], SEEDS[6:]), strict=True):
        assert process.hear() == {"busy": True}
        process.tell(compute=own)
        assert process.hear() == {"samples": 2 * MICRO_BATCH}
    for step in (1, 2):
        for process in peers:
            process.tell(end=True)
        for process in peers:
            assert process.hear() == {"made": True, "group": 2, "step": step}
            if step == 1:
                process.tell(begin=2)
        if step == 1:
            for process in peers:
                assert process.hear() == {"busy": True}
    first, second = (saved(process, tmp_path / f"{i}.pt") for i, process in enumerate(peers))
    expected = plain_pytorch_one_step_late(spec, SEEDS[:4], SEEDS[4:])
    assert_same(first, expected, SAME_UPDATE)
    assert_same(first[: len(expected)], second, SAME_PARAMETERS)


def plain_pytorch_one_step_late(spec: RunSpec, first: list[int], second: list[int]) -> list[torch.Tensor]:
    """Two steps whose gradients are both of the parameters at the beginning."""
    state, gradients = new_state(spec), ([], [])
    for mean, seeds in zip(gradients, (first, second), strict=True):
        for parameter in state.model_parameters:
            parameter.grad = None
        for seed in seeds:
            (loss_of(state, seed) / len(seeds)).backward()
        mean.extend(parameter.grad.clone() for parameter in state.model_parameters)
    for mean in gradients:
        state.apply_gradients(mean, "")
    return [parameter.detach() for parameter in state.parameters]
