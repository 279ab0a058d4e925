"""The process that measures: reads a `BenchPlan` from stdin, prints one JSON object per line.

    {"trial": {…}}            a setting was measured
    {"stopped": "…", "precision": "fp32", "compiled": false}     why no larger micro-batch was tried
    {"waiting": 0.01, …}      share of the time that the recommended setting waits for data

A process of its own, so that running out of memory kills it and not the peer, and that nothing of torch's threads or
of the allocator's memory is left when hivemind forks.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch

from model import LeanAlbertNetwork, LeanAlbertShape
from model.fp32_matmul import allow_onednn_fp32
from model.host_allocator import keep_freed_memory
from model.training_step import StepSetting, autocast, built_model, measure
from peer.available_memory import available_memory
from peer.bench_plan import BenchPlan
from peer.micro_batch_search import Limits, Outcome, Trial, recommended, search

# gradient, both moments, the averager's copy and the one that newcomers download, in fp32
TRAINING_BYTES_PER_PARAMETER = 20
USABLE_SHARE = 0.8
STEPS_WITH_DATA = 5
LEAST_SECONDS = 0.3


def main() -> None:
    """Measure what stdin asks for."""
    plan = BenchPlan.from_json(sys.stdin.read())
    if torch.device(plan.device).type == "cpu":
        allow_onednn_fp32()
        keep_freed_memory()
    trials = measure_all(plan)
    if plan.with_data and trials:
        _say(waiting_for_data(plan, recommended(trials)))


def measure_all(plan: BenchPlan) -> list[Trial]:
    """Every setting of the plan, each by a search of its own."""
    found: list[Trial] = []
    for precision, compiled in plan.settings:
        outcome = _search(plan, precision, compiled, plan.checkpointing == "always", found)
        found += outcome.trials
        if outcome.memory_ended and plan.checkpointing == "if needed":
            found += _search(plan, precision, compiled, True, found).trials
    return found


def _search(
    plan: BenchPlan, precision: str, compiled: bool, checkpointing: bool, found: list[Trial]
) -> Outcome:
    shape = StepSetting(
        LeanAlbertShape.of(plan.workload.config),
        1,
        plan.workload.sequence_length,
        precision,
        compiled=compiled,
        gradient_checkpointing=checkpointing,
        device=plan.device,
    )
    model = built_model(shape)
    outcome = search(
        lambda size: _say_trial(_trial(shape, size, model)),
        _limits(plan, model),
        rival=max((trial.samples_per_second for trial in found), default=0.0),
        # a graph is compiled once in a peer's life: its time says nothing of whether to go on
        count_only_steps=compiled,
    )
    _say({"stopped": outcome.stopped, "precision": precision, "compiled": compiled})
    return outcome


def waiting_for_data(plan: BenchPlan, trial: Trial) -> dict[str, Any]:
    """Train on a real stream for a few micro-batches and see how long it lets us wait."""
    # here, because it imports transformers, and a joining peer does not ask for this
    from peer.synthetic_text import synthetic_stream

    config, length = LeanAlbertShape.of(plan.workload.config), plan.workload.sequence_length
    model = built_model(
        StepSetting(
            config, 1, length, trial.precision, trial.compiled, trial.gradient_checkpointing, plan.device
        )
    )
    with synthetic_stream(config.vocab_size, length, trial.micro_batch_size) as stream:
        next(stream)  # opens files and starts reading ahead, once in a peer's life
        before, started = stream.wait_seconds, time.perf_counter()
        for _ in range(STEPS_WITH_DATA):
            batch = {name: tensor.to(plan.device) for name, tensor in next(stream).items()}
            with autocast(plan.device, trial.precision):
                loss = model(**batch).loss
            loss.backward()
            float(loss.detach())
        seconds, waited = time.perf_counter() - started, stream.wait_seconds - before
    return {"waiting": waited / seconds, "milliseconds": 1e3 * waited / STEPS_WITH_DATA}


def _trial(shape: StepSetting, size: int, model: LeanAlbertNetwork) -> Trial:
    try:
        cost = measure(shape.of_size(size), model=model, repetitions=2, least_seconds=LEAST_SECONDS)
    except torch.OutOfMemoryError as error:
        raise MemoryError from error
    return Trial(
        size,
        shape.precision,
        shape.compiled,
        cost.seconds,
        cost.samples_per_second,
        cost.tokens_per_second,
        cost.peak_memory_bytes,
        shape.gradient_checkpointing,
    )


def _limits(plan: BenchPlan, model: torch.nn.Module) -> Limits:
    parameters = sum(parameter.numel() for parameter in model.parameters())
    free = available_memory(torch.device(plan.device)) - TRAINING_BYTES_PER_PARAMETER * parameters
    return Limits(
        memory_bytes=int(USABLE_SHARE * max(0, free)),
        search_seconds=plan.search_seconds / len(plan.settings),
        step_seconds=plan.workload.step_seconds,
        largest=plan.workload.largest,
    )


def _say_trial(trial: Trial) -> Trial:
    _say({"trial": trial.__dict__})
    return trial


def _say(message: dict[str, Any]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    main()
