"""When the search for the micro-batch size goes on, when it ends, and what it chooses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from peer.micro_batch_search import Limits, Trial, recommended, search

PLENTY = Limits(memory_bytes=10**12, search_seconds=1e6, step_seconds=1e6, largest=64)


class Machine:
    """A pretended machine; its time passes with the measurements."""

    def __init__(self, seconds: Callable[[int], float], memory: Callable[[int], int] = lambda size: size):
        self.seconds, self.memory = seconds, memory
        self.now = 0.0
        self.tried: list[int] = []

    def measure(self, size: int) -> Trial:
        self.tried.append(size)
        seconds = self.seconds(size)
        self.now += 3 * seconds
        return Trial(size, "fp32", False, seconds, size / seconds, size / seconds, self.memory(size))

    def search(self, limits: Limits, **options: float):
        return search(self.measure, limits, clock=lambda: self.now, **options)


def test_grows_while_larger_is_faster_and_takes_the_smallest_of_the_fast():
    machine = Machine(lambda size: 1.0 if size <= 8 else size / 8)
    outcome = machine.search(PLENTY)
    assert machine.tried == [1, 2, 4, 8, 16, 32]
    assert "not faster" in outcome.stopped
    assert recommended(outcome.trials).micro_batch_size == 8


def test_stops_before_memory_runs_out():
    machine = Machine(lambda size: 1.0, lambda size: 1000 + 100 * size)
    outcome = machine.search(Limits(3000, 1e6, 1e6, 64))
    assert machine.tried == [1, 2, 4, 8, 16]
    assert max(trial.memory_bytes for trial in outcome.trials) <= 3000
    assert "would not fit" in outcome.stopped


def test_one_sample_that_fits_barely_is_not_doubled():
    assert (
        Machine(lambda size: 1.0, lambda size: 900)
        .search(Limits(1000, 1e6, 1e6, 64))
        .trials[-1]
        .micro_batch_size
        == 1
    )


@pytest.mark.parametrize(
    ("limits", "largest", "reason"),
    [
        (Limits(10**12, 35.0, 1e6, 64), 4, "time for the search"),
        (Limits(10**12, 1e6, 5.0, 64), 4, "longer than 5.0 s"),
        (Limits(10**12, 1e6, 1e6, 2), 2, "no more than 2 samples"),
    ],
)
def test_patience_and_the_run_set_limits(limits, largest, reason):
    outcome = Machine(lambda size: 1.0 * size**0.9).search(limits)
    assert outcome.trials[-1].micro_batch_size == largest
    assert reason in outcome.stopped


def test_time_that_is_no_step_can_be_left_out():
    """A machine that compiles for a minute before each size."""
    machine = Machine(lambda size: 1.0 if size <= 4 else size / 4)
    compiling = machine.measure

    def measure(size: int) -> Trial:
        machine.now += 60
        return compiling(size)

    limits = Limits(10**12, 40.0, 1e6, 64)
    found = [
        search(measure, limits, clock=lambda: machine.now, count_only_steps=only).trials[-1].micro_batch_size
        for only in (False, True)
    ]
    assert found == [1, 16]


def test_a_much_slower_precision_is_not_pursued():
    outcome = Machine(lambda size: 1.0).search(PLENTY, rival=3.0)
    assert len(outcome.trials) == 1
    assert "twice as fast" in outcome.stopped


def test_what_does_not_fit_after_all_ends_the_search_and_not_the_process():
    def measure(size: int) -> Trial:
        if size > 2:
            raise MemoryError
        return Trial(size, "fp32", False, 1.0, size, size, 1)

    outcome = search(measure, PLENTY)
    assert [trial.micro_batch_size for trial in outcome.trials] == [1, 2]
    assert outcome.stopped == "4 samples do not fit into memory"
