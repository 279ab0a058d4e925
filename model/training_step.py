"""One training step in numbers: how long it takes and how much memory, for a given shape and precision.

`measure` builds a model of random weights and runs forward and backward on synthetic micro-batches; it is
what a peer asks to choose its micro-batch size, precision and compilation. A setting that does not fit
into memory raises torch's OutOfMemoryError on an accelerator; on a CPU the operating system decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from model.configuration_lean_albert import LeanAlbertConfig
from model.losses_lean_albert import IGNORED_LABEL
from model.modeling_lean_albert import LeanAlbertForPreTraining
from model.peak_memory import PeakMemory

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MASKED_FRACTION = 0.15

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class StepSetting:
    """What one micro-batch's forward and backward pass is measured for."""

    config: LeanAlbertConfig
    micro_batch_size: int
    sequence_length: int = 512
    precision: str = "fp32"
    compiled: bool = False
    gradient_checkpointing: bool = False
    device: str = "cpu"


@dataclass(frozen=True)
class StepCost:
    """Median seconds of a step, what that comes to, and the peak of memory above an empty process."""

    seconds: float
    samples_per_second: float
    tokens_per_second: float
    peak_memory_bytes: int


def synthetic_batch(config: LeanAlbertConfig, batch_size: int, length: int, device: str = "cpu") -> Batch:
    """Random ids [B, L] with labels on 15 % of them and sentence-order labels [B]; the same every time."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, config.vocab_size, (batch_size, length), generator=generator)
    masked = torch.rand(ids.shape, generator=generator) < MASKED_FRACTION
    order = torch.randint(0, 2, (batch_size,), generator=generator)
    batch = {"input_ids": ids, "labels": ids.where(masked, IGNORED_LABEL), "sentence_order_label": order}
    return {name: tensor.to(device) for name, tensor in batch.items()}


@contextmanager
def autocast(device: str, precision: str) -> Iterator[None]:
    """Mixed precision for the forward pass; raises ValueError for a precision that is not known."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
    kind = torch.device(device).type
    with torch.autocast(kind, dtype=PRECISIONS[precision], enabled=precision != "fp32"):
        yield


def run_step(model: Callable[..., Any], batch: Batch, device: str, precision: str) -> None:
    """Forward and backward; returns when the device has finished."""
    with autocast(device, precision):
        loss = model(**batch).loss
    loss.backward()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def measure(setting: StepSetting, *, warmup: int = 1, repetitions: int = 3) -> StepCost:
    """Time steps of a fresh model after `warmup` untimed ones (which also compile)."""
    memory = PeakMemory(setting.device)
    model = LeanAlbertForPreTraining(setting.config).train()
    model.to(torch.device(setting.device))  # type: ignore[arg-type]
    if setting.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    step_model = torch.compile(model, dynamic=True) if setting.compiled else model
    batch = synthetic_batch(setting.config, setting.micro_batch_size, setting.sequence_length, setting.device)
    seconds = []
    for index in range(warmup + repetitions):
        started = time.perf_counter()
        run_step(step_model, batch, setting.device, setting.precision)
        if index >= warmup:
            seconds.append(time.perf_counter() - started)
    median = sorted(seconds)[len(seconds) // 2]
    rate = setting.micro_batch_size / median
    return StepCost(median, rate, rate * setting.sequence_length, memory.peak_bytes())
