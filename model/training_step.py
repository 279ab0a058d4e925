"""One training step in numbers: how long it takes and how much memory, for a given shape and precision.

`measure` builds a model of random weights and runs forward and backward on synthetic micro-batches; it is
what a peer asks to choose its micro-batch size, precision and compilation. A setting that does not fit
into memory raises torch's OutOfMemoryError on an accelerator; on a CPU the operating system decides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from model.layers_lean_albert import LeanAlbertPair, LeanAlbertTransformer
from model.losses_lean_albert import IGNORED_LABEL
from model.network_lean_albert import LeanAlbertNetwork
from model.peak_memory import PeakMemory
from model.shape_lean_albert import LeanAlbertShape

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
MASKED_FRACTION = 0.15

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class StepSetting:
    """What one micro-batch's forward and backward pass is measured for."""

    config: LeanAlbertShape
    micro_batch_size: int
    sequence_length: int = 512
    precision: str = "fp32"
    compiled: bool = False
    gradient_checkpointing: bool = False
    device: str = "cpu"

    def of_size(self, micro_batch_size: int) -> StepSetting:
        """The same with another micro-batch size."""
        return replace(self, micro_batch_size=micro_batch_size)


@dataclass(frozen=True)
class StepCost:
    """Seconds of the fastest step, what that comes to, and the peak of memory above what was in use before."""

    seconds: float
    samples_per_second: float
    tokens_per_second: float
    peak_memory_bytes: int


def synthetic_batch(config: LeanAlbertShape, batch_size: int, length: int, device: str = "cpu") -> Batch:
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


def compile_layers(model: torch.nn.Module) -> None:
    """Compile every pair of layers in place, on its first use; names in the state dict stay as they are.

    Not the whole model: the positions of the labels are data, at which a graph of it all would break. Every shape is
    compiled for itself: with sizes left open torch 2.13 fails on the second one ("mul expected 2 arguments, got 3").
    """
    for module in model.modules():
        if isinstance(module, LeanAlbertTransformer):
            module.keeps_padding = True
        if isinstance(module, LeanAlbertPair):
            module.compile(dynamic=False)


def checkpoint_gradients(model: torch.nn.Module) -> None:
    """Keep no activations of layers for the backward pass: computed twice, they take next to no memory."""
    # here, because few peers need what it imports
    from torch.utils.checkpoint import checkpoint

    for module in model.modules():
        if isinstance(module, LeanAlbertTransformer):
            module.gradient_checkpointing = True
            module._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)


def checkpoints_gradients(model: torch.nn.Module) -> bool:
    """Whether `checkpoint_gradients` was called for it."""
    return any(
        isinstance(module, LeanAlbertTransformer) and module.gradient_checkpointing
        for module in model.modules()
    )


def built_model(setting: StepSetting) -> LeanAlbertNetwork:
    """A model of random weights on the setting's device, ready to train; compiled on its first step if wanted."""
    model = LeanAlbertNetwork(setting.config).train().to(setting.device)
    if setting.gradient_checkpointing:
        checkpoint_gradients(model)
    if setting.compiled:
        compile_layers(model)
    return model


def measure(
    setting: StepSetting,
    *,
    model: LeanAlbertNetwork | None = None,
    warmup: int = 1,
    repetitions: int = 3,
    least_seconds: float = 0.0,
) -> StepCost:
    """Time steps after `warmup` untimed ones (which also compile).

    The fastest counts: whatever else the machine does only ever adds.

    :param model: from `built_model`, to measure it at several sizes; its own memory is then not counted
    :param least_seconds: go on beyond `repetitions` for so long
    """
    if model is not None:
        model.zero_grad(set_to_none=True)
    memory = PeakMemory(setting.device)
    model = built_model(setting) if model is None else model
    batch = synthetic_batch(setting.config, setting.micro_batch_size, setting.sequence_length, setting.device)
    for _ in range(warmup):
        run_step(model, batch, setting.device, setting.precision)
    seconds: list[float] = []
    while len(seconds) < repetitions or sum(seconds) < least_seconds:
        started = time.perf_counter()
        run_step(model, batch, setting.device, setting.precision)
        seconds.append(time.perf_counter() - started)
    rate = setting.micro_batch_size / min(seconds)
    return StepCost(min(seconds), rate, rate * setting.sequence_length, memory.peak_bytes())
