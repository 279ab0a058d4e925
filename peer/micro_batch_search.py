"""The search for the micro-batch size: doubles from 1 and stops before memory, patience or usefulness ends.

Pure decisions; what is measured comes in as a function, so the same search serves `peer bench`, `peer join` and the
tests. A size is tried only if the sizes before it say that it will fit: nothing is found out by running out of memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_prep.counted import counted

# a gain below this is noise, and a larger micro-batch costs memory and makes a peer slower to react
WORTHWHILE_GAIN = 0.03
# activations grow in proportion to the size; what libraries add on top does not always
MEMORY_MARGIN = 1.15
STEPS_PER_TRIAL = 3
NOT_INTO_MEMORY = "would not fit into memory"


@dataclass(frozen=True)
class Limits:
    """What a micro-batch may take.

    :param memory_bytes: on top of model and optimizer
    :param search_seconds: for the whole search
    :param step_seconds: for one micro-batch; a peer looks around only between two
    :param largest: samples that the run wants at once from one peer
    """

    memory_bytes: int
    search_seconds: float
    step_seconds: float
    largest: int


@dataclass(frozen=True)
class Trial:
    """One setting, measured. `memory_bytes` is what a step takes at its peak on top of the model."""

    micro_batch_size: int
    precision: str
    compiled: bool
    seconds: float
    samples_per_second: float
    tokens_per_second: float
    memory_bytes: int
    gradient_checkpointing: bool = False


@dataclass(frozen=True)
class Outcome:
    """The trials in the order of their size, and in words why there are no more; `memory_ended` if it was memory."""

    trials: tuple[Trial, ...]
    stopped: str
    memory_ended: bool = False


def search(
    measure: Callable[[int], Trial],
    limits: Limits,
    *,
    rival: float = 0.0,
    count_only_steps: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Outcome:
    """Measure sizes 1, 2, 4 … for as long as the next one is worth it.

    :param measure: may raise MemoryError, which ends the search
    :param rival: samples/s that another precision reached; a setting of less than half of it is not pursued
    :param count_only_steps: the time for the search is that of the steps, without what preparing them took
    """
    started, size = clock(), 1
    trials: list[Trial] = []
    while True:
        try:
            trials.append(measure(size))
        except MemoryError:
            return Outcome(tuple(trials), f"{size} samples do not fit into memory", memory_ended=True)
        size *= 2
        elapsed = clock() - started
        if count_only_steps:
            elapsed = STEPS_PER_TRIAL * sum(trial.seconds for trial in trials)
        reason = why_not(size, trials, limits, elapsed, rival)
        if reason:
            return Outcome(tuple(trials), reason, memory_ended=reason.endswith(NOT_INTO_MEMORY))


def why_not(size: int, trials: Sequence[Trial], limits: Limits, elapsed: float, rival: float = 0.0) -> str:
    """Why `size`, twice the last one tried, should not be tried; empty if it should."""
    last = trials[-1]
    if size > limits.largest:
        return f"the run wants no more than {counted(limits.largest, 'sample')} at once from one peer"
    if 2 * max(trial.samples_per_second for trial in trials) < rival:
        return "another precision is more than twice as fast"
    if predicted_memory(size, trials) > limits.memory_bytes:
        return f"{size} samples {NOT_INTO_MEMORY}"
    if 2 * last.seconds > limits.step_seconds:
        return f"{size} samples would take longer than {limits.step_seconds:.1f} s"
    if len(trials) >= 3 and last.samples_per_second < trials[-3].samples_per_second * (1 + WORTHWHILE_GAIN):
        return "larger ones are not faster"
    if elapsed + 2 * last.seconds * STEPS_PER_TRIAL > limits.search_seconds:
        return "the time for the search is over"
    return ""


def predicted_memory(size: int, trials: Sequence[Trial]) -> float:
    """Peak bytes of a step of `size` samples, with a margin."""
    last = trials[-1]
    per_sample = last.memory_bytes / last.micro_batch_size
    if len(trials) > 1:
        before = trials[-2]
        grown = last.memory_bytes - before.memory_bytes
        per_sample = max(0.0, grown / (last.micro_batch_size - before.micro_batch_size))
    return MEMORY_MARGIN * (last.memory_bytes + per_sample * (size - last.micro_batch_size))


def recommended(trials: Sequence[Trial]) -> Trial:
    """The fastest, or one that takes less memory and is as fast but for noise."""
    best = max(trial.samples_per_second for trial in trials)
    good = [trial for trial in trials if trial.samples_per_second * (1 + WORTHWHILE_GAIN) >= best]
    return min(good, key=lambda trial: (trial.memory_bytes, trial.micro_batch_size))
