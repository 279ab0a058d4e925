"""Averaging rounds between real processes: what is averaged, with whom, and what is really received."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
import torch

from tests.scenarios.line_process import LineProcess
from tests.scenarios.round_participant import seeded

Start = Callable[..., list[LineProcess]]


@pytest.fixture
def start(tmp_path) -> Iterator[Start]:
    """Starts participants of one swarm, one for each list of values; the first is the others' first contact.

    Those whose numbers are in `client_mode` cannot be reached, and lead no group.
    """
    processes: list[LineProcess] = []

    def start(
        *values: list,
        compression: str = "none",
        step: int = 0,
        client_mode: Sequence[int] = (),
        **ways: object,
    ) -> list[LineProcess]:
        processes.extend(LineProcess("tests.scenarios.round_participant") for _ in values)
        contact: list[str] = []
        for index, (process, own) in enumerate(zip(processes, values, strict=True)):
            setup = {"folder": str(tmp_path), "values": own, "compression": compression, "step": step}
            process.tell(**setup, **ways, client_mode=index in client_mode, initial_peers=contact)
            process.hello = process.hear()
            contact = contact or process.hello["addresses"]
        return processes

    yield start
    for process in processes:
        process.kill_group()


def all_round(processes: list[LineProcess], steps: list[int] | None = None, **command) -> list[dict]:
    steps = steps or [0] * len(processes)
    for process, step in zip(processes, steps, strict=True):
        process.tell(**{"round": "gradients", "weight": 1.0, "samples": 1, **command, "step": step})
    return [process.hear() for process in processes]


def test_values_are_averaged_by_weight_and_the_samples_of_all_are_known(start):
    first, second = start([[1.0, 2.0], [3.0]], [[3.0, 4.0], [7.0]])
    first.tell(round="gradients", step=0, group_size=2, weight=1.0, samples=16)
    second.tell(round="gradients", step=0, group_size=2, weight=3.0, samples=48)
    for result in (first.hear(), second.hear()):
        assert result["values"] == [[2.5, 3.5], [6.0]]
        assert result["complete"]
        assert result["samples"] == {first.hello["peer_id"]: 16, second.hello["peer_id"]: 48}


def test_a_slow_link_averages_with_a_fast_one(start):
    peers = start([[1.0]], [[3.0]])
    for peer, bandwidth in zip(peers, (1000.0, 2.0), strict=True):
        peer.tell(round="gradients", step=0, group_size=2, weight=1.0, samples=1, bandwidth=bandwidth)
    assert [peer.hear()["values"] for peer in peers] == [[[2.0]]] * 2


def test_a_bandwidth_that_nobody_has_is_refused(start):
    honest, liar = start([[1.0]], [[3.0]])
    for peer, bandwidth in ((honest, 100.0), (liar, 1e6)):
        peer.tell(round="gradients", step=0, group_size=2, weight=1.0, samples=1, bandwidth=bandwidth)
    assert "failed" in honest.hear()


def test_a_leader_that_names_members_twice_is_followed_no_more(start):
    _leader, follower = start([[1.0]], [[3.0]], client_mode=[1], names_twice=True)
    for reason in ("group that cannot be, of 4 members", "could not find a group"):
        assert reason in all_round([_leader, follower], group_size=2)[1]["failed"]


def test_a_leader_keeps_nothing_of_whom_it_has_led(start):
    leader, follower = start([[1.0]], [[3.0]], client_mode=[1])
    for step in range(3):
        assert all(result["complete"] for result in all_round([leader, follower], [step] * 2, group_size=2))
    leader.tell(count="followers")
    assert leader.hear() == {"followers": 0}


def test_peers_at_different_steps_never_average(start):
    first, second = start([[1.0]], [[3.0]])
    results = all_round([first, second], steps=[7, 8], group_size=2)
    assert all("could not find a group" in result["failed"] for result in results)


def test_eight_bits_really_average(start):
    """With a numpy that breaks hivemind's codecs every peer keeps its own values, and the round looks fine."""
    size = 2**17
    peers = start([{"seed": 1, "size": size}], [{"seed": 2, "size": size}], compression="8bit")
    own = [seeded(1, size)[:1000], seeded(2, size)[:1000]]
    mean = (own[0] + own[1]) / 2
    for result, before in zip(all_round(peers, group_size=2), own, strict=True):
        averaged = torch.tensor(result["values"][0])
        assert result["complete"]
        # the codec's rmse is 0.015 per unit of deviation; own values are 0.7 away from the mean
        assert (averaged - mean).pow(2).mean().sqrt() < 0.1
        assert (averaged - before).pow(2).mean().sqrt() > 0.5


def test_a_round_goes_on_without_a_peer_that_died(start):
    """Leases promised three, one is gone: the others average when the matchmaking time is over."""
    peers = start([[1.0]], [[3.0]], [[100.0]])
    peers[2].kill_group()
    for result in all_round(peers[:2], group_size=3):
        assert result["values"] == [[2.0]]
        assert len(result["samples"]) == 2


def test_nobody_there_is_a_failure_in_seconds_and_the_next_round_works(start):
    early, late = start([[5.0]], [[7.0]])
    early.tell(round="gradients", step=0, group_size=2, weight=1.0, samples=1)
    assert "failed" in early.hear()
    assert [result["values"] for result in all_round([early, late], group_size=2)] == [[[6.0]], [[6.0]]]


def test_state_comes_from_the_donor_that_was_asked(start):
    donor, newcomer = start(
        [[1.0, 2.0], [[3.0], [4.0]], {"codes": [0, 7, 255]}],
        [[0.0, 0.0], [[0.0], [0.0]], {"codes": [0, 0, 0]}],
        step=42,
    )
    newcomer.tell(download=donor.hello["peer_id"])
    assert newcomer.hear() == {"step": 42, "values": [[1.0, 2.0], [[3.0], [4.0]], [0, 7, 255]]}


def test_a_stream_that_breaks_off_is_opened_again(start):
    donor, newcomer = start([[1.0, 2.0], [[3.0], [4.0]]], [[0.0, 0.0], [[0.0], [0.0]]], step=42, breaks_off=2)
    newcomer.tell(download=donor.hello["peer_id"])
    assert newcomer.hear() == {"step": 42, "values": [[1.0, 2.0], [[3.0], [4.0]]]}


def test_a_donor_whose_streams_always_break_off_is_given_up(start):
    donor, newcomer = start([[1.0], [2.0]], [[0.0], [0.0]], step=42, breaks_off=3)
    newcomer.tell(download=donor.hello["peer_id"])
    assert "streams broke off" in newcomer.hear()["failed"]


def test_several_donors_each_send_pieces(start):
    """Donors of one step differ by what codecs lose; here by much more, so that it shows who sent what."""
    newcomer, *donors = start(*([{"fill": value, "size": 2**22}] for value in (0.0, 1.0, 2.0)), step=9)
    newcomer.tell(download=" ".join(donor.hello["peer_id"] for donor in donors))
    assert newcomer.hear() == {"step": 9, "values": [[1.0, 2.0]]}


def test_what_a_dead_donor_does_not_send_comes_from_another(start):
    newcomer, alive, dead = start([[0.0], [0.0]], [[1.0], [2.0]], [[3.0], [4.0]], step=9)
    dead.kill_group()
    newcomer.tell(download=f"{alive.hello['peer_id']} {dead.hello['peer_id']}")
    assert newcomer.hear() == {"step": 9, "values": [[1.0], [2.0]]}


def test_a_state_that_does_not_fit_is_refused_with_the_reason(start):
    donations = {
        "not finite": [[1.0, float("nan")]],
        "float32[3]": [[1.0, 2.0, 3.0]],
        "2 tensors, not 1": [[1.0, 2.0], [3.0]],
        "float32[600000], not": [{"seed": 1, "size": 600_000}],
        "uint8[2], not float32[2]": [{"codes": [1, 2]}],
    }
    *donors, newcomer = start(*donations.values(), [[0.0, 0.0]])
    for donor, reason in zip(donors, donations, strict=True):
        newcomer.tell(download=donor.hello["peer_id"])
        assert reason in newcomer.hear()["failed"]


def test_a_dead_donor_is_a_failure_not_a_hang(start):
    donor, newcomer = start([[1.0]], [[0.0]])
    donor.kill_group()
    newcomer.tell(download=donor.hello["peer_id"])
    assert "failed" in newcomer.hear()
