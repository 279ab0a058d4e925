"""Two thin factors stand for a gradient, and what they leave out comes later."""

from __future__ import annotations

import pytest
import torch

from swarm.codecs import compressed_bytes, compression_for
from swarm.low_rank import LowRankGradients, is_worth_it
from swarm.tensor_stream import pack_messages

ROWS, COLUMNS, RANK = 96, 64, 4


def matrix(seed: int, rank: int = COLUMNS) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(ROWS, rank, generator=rng) @ torch.randn(rank, COLUMNS, generator=rng) / rank**0.5


def average(peers: list[LowRankGradients], gradients: list[list[torch.Tensor]], key: str) -> None:
    """A round without a network: every exchange is a mean."""
    for exchange in ("first", "second"):
        factors = [
            peer.first(own, key) if exchange == "first" else peer.second()
            for peer, own in zip(peers, gradients, strict=True)
        ]
        for same in zip(*factors, strict=True):
            mean = torch.stack(list(same)).mean(0)
            for tensor in same:
                tensor.copy_(mean)
    for peer in peers:
        peer.finish()


def test_a_mean_of_low_rank_is_exact_and_the_same_for_everyone():
    gradients = [[matrix(1, rank=2)], [matrix(2, rank=2)]]
    expected = (gradients[0][0] + gradients[1][0]) / 2
    average([LowRankGradients(RANK), LowRankGradients(RANK)], gradients, "step 7")
    for own in gradients:
        torch.testing.assert_close(own[0], expected, rtol=1e-4, atol=1e-5)


def test_what_the_factors_leave_out_is_not_lost():
    """Over many steps with the same gradient the sum of what was applied comes near the sum of what was computed."""
    peers = [LowRankGradients(RANK), LowRankGradients(RANK)]
    wanted, applied, missing = torch.zeros(ROWS, COLUMNS), torch.zeros(ROWS, COLUMNS), []
    for step in range(60):
        gradients = [[matrix(1)], [matrix(2)]]
        wanted += (gradients[0][0] + gradients[1][0]) / 2
        average(peers, gradients, f"step {step}")
        applied += gradients[0][0]
        missing.append(float((wanted - applied).norm() / wanted.norm()))
    assert missing[0] > 0.5
    assert missing[-1] < 0.35
    assert float(torch.nn.functional.cosine_similarity(wanted.flatten(), applied.flatten(), dim=0)) > 0.9


def test_a_round_that_failed_can_be_made_again():
    """Until `finish` nothing is remembered."""
    once, again = LowRankGradients(RANK), LowRankGradients(RANK)
    again.first([matrix(1)], "a round that fails")
    again.second()
    results = []
    for compressor in (once, again):
        gradients = [matrix(1)]
        average([compressor], [gradients], "step 3")
        results.append(gradients[0])
    torch.testing.assert_close(results[0], results[1])


@pytest.mark.parametrize(
    ("shape", "worth_it"), [((1024, 3072), True), ((64, 64), False), ((4096,), False), ((8, 4096), False)]
)
def test_only_large_matrices_are_factored(shape, worth_it):
    assert is_worth_it(torch.Size(shape), 32) is worth_it


def test_other_tensors_travel_beside_the_factors():
    bias, weight = torch.ones(COLUMNS), matrix(1)
    compressor = LowRankGradients(RANK)
    assert [p.shape for p in compressor.first([weight, bias], "x")] == [(ROWS, RANK)]
    assert [tensor.shape for tensor in compressor.second()] == [(COLUMNS, RANK), (COLUMNS,)]
    compressor.finish()
    assert torch.equal(bias, torch.ones(COLUMNS))


def test_the_size_of_a_factored_matrix_is_what_travels():
    compressor = LowRankGradients(32)
    first = pack_messages(compressor.first([torch.randn(512, 2048)], "x"), compression_for("none"))
    second = pack_messages(compressor.second(), compression_for("low_rank"))
    travels = sum(map(len, [*first, *second]))
    assert compressed_bytes((512, 2048), "low_rank", 32) == pytest.approx(travels, rel=0.01)
