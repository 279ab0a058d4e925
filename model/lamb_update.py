"""One LAMB step of one parameter: the moments chunk by chunk, then the trust ratio over the whole tensor.

On a CPU the chunks are spread over threads of our own: torch would split each small operation among its threads. How
many threads there are does not change what a chunk becomes. Moments in codes are advanced there by a kernel of our own,
those in fp32 by torch's fused one; elsewhere both by single operations.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any

import torch

from model.lamb_state import CHUNK, MOMENTS, Chunk, State, chunks_of, read_moment, write_moment

SquareNorms = tuple[float, float]
# a step so late that Adam's own corrections of the bias are exactly 1
LATE = torch.tensor(1e30)


class ScratchMemory:
    """Buffers on the host that go from parameter to parameter and from step to step.

    Fresh memory has to be cleared by the system, page by page, which costs as much as several passes over it.
    Holds one fp32 copy of the largest parameter, and a megabyte a thread.
    """

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, int], torch.Tensor] = {}

    def take(self, name: str, numel: int, *, worker: int = 0, largest: int = 0) -> torch.Tensor:
        """Room for `numel` values; ask for as many as it will ever be, `largest`, so that it is made once."""
        key = (name, worker)
        if key not in self._buffers or self._buffers[key].numel() < numel:
            self._buffers.pop(key, None)
            self._buffers[key] = torch.empty(max(numel, largest), dtype=torch.float32)
        return self._buffers[key][:numel]


class Workers:
    """Threads that live for one optimizer step; none are started for a single one."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool = None
        if count > 1:  # inside its threads torch must not split operations once more
            self._pool = ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,))

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            torch.set_num_threads(self.count)  # what threads started later will begin with

    def map(
        self, function: Callable[[int, list[Chunk]], list[SquareNorms]], chunks: list[Chunk]
    ) -> list[SquareNorms]:
        """Apply `function` to each worker's number and run of chunks; the answers come in the order of the chunks."""
        if self._pool is None or len(chunks) < 2:
            return function(0, chunks)
        size = -(-len(chunks) // self.count)
        runs = [chunks[start : start + size] for start in range(0, len(chunks), size)]
        return [norms for answer in self._pool.map(function, range(len(runs)), runs) for norms in answer]


def update(
    p: torch.Tensor,
    gradient: torch.Tensor,
    state: State,
    group: dict[str, Any],
    scale: float,
    workers: Workers,
    memory: ScratchMemory,
    largest: int = 0,
) -> None:
    """Advance `p` and its `state` in place by the gradient times `scale`, where the state is.

    :param largest: values of the largest parameter of this step, so that scratch memory is made once
    """
    device = next(value.device for name, value in state.items() if name != "step")
    on_host = device.type == "cpu"
    in_codes = on_host and MOMENTS[0] not in state
    weights = p.to(device).contiguous().view(-1)
    gradient = gradient.to(device).contiguous().view(-1)
    if on_host:
        delta = memory.take("delta", weights.numel(), largest=largest)
    else:
        delta = torch.empty(weights.shape, dtype=torch.float32, device=device)
    state["step"] += 1

    @torch.no_grad()  # holds for one thread only
    def advance(worker: int, chunks: list[Chunk]) -> list[SquareNorms]:
        norms = []
        for chunk in chunks:
            part, slope, change = (t[chunk.values].view(chunk.shape) for t in (weights, gradient, delta))
            part, slope = part.float(), slope.float()
            if in_codes:
                norms.append(_advance_codes(state, chunk, part, slope, change, group, scale))
                continue
            if scale != 1:
                room = (
                    memory.take("gradient", slope.numel(), worker=worker, largest=CHUNK) if on_host else None
                )
                slope = torch.mul(slope, scale, out=None if room is None else room.view(slope.shape))
            norms.append(_advance_moments(state, chunk, part, slope, change, group))
        return norms

    size = CHUNK if on_host else weights.numel()
    norms = workers.map(advance, list(chunks_of(weights.numel(), size)))
    weight_norm, delta_norm = (math.sqrt(sum(pair[which] for pair in norms)) for which in range(2))
    ratio = trust_ratio(weight_norm, delta_norm, group["clamp_value"])
    rate = group["lr"] * ratio * _rate_correction(group, state["step"].item())
    weights.add_(delta, alpha=rate)
    if weights.data_ptr() != p.data_ptr():
        p.copy_(weights.view(p.shape))


def _advance_codes(
    state: State,
    chunk: Chunk,
    weights: torch.Tensor,
    gradient: torch.Tensor,
    delta: torch.Tensor,
    group: dict[str, Any],
    scale: float,
) -> SquareNorms:
    """As `_advance_moments` with the gradient times `scale`, on a CPU."""
    from model.lamb_kernel import advance_blocks, coded_moment, constants

    mean, square = (
        coded_moment(
            state[f"{name}_codes"][chunk.values],
            state[f"{name}_absmax"][chunk.blocks],
            signed=name == MOMENTS[0],
        )
        for name in MOMENTS
    )
    given = constants(scale, group["betas"], group["eps"], group["weight_decay"])
    flat = (tensor.view(-1).numpy() for tensor in (weights, gradient))
    return advance_blocks(*flat, mean, square, delta.view(-1).numpy(), given)


def _advance_moments(
    state: State,
    chunk: Chunk,
    weights: torch.Tensor,
    gradient: torch.Tensor,
    delta: torch.Tensor,
    group: dict[str, Any],
) -> SquareNorms:
    """Update both moments of a chunk, write the negative direction into `delta`, return |p|^2 and |delta|^2.

    The direction comes from the moments before they are rounded for storage.
    """
    mean, square = (read_moment(state, name, chunk) for name in MOMENTS)
    torch.mul(weights, -group["weight_decay"], out=delta)
    adam = _adam_in_one_pass if delta.device.type == "cpu" else _adam_in_steps
    beta1, beta2 = group["betas"]
    adam(delta, gradient, mean, square, beta1, beta2, group["eps"])
    for name, moment in zip(MOMENTS, (mean, square), strict=True):
        write_moment(state, name, chunk, moment)
    return _square_norm(weights), _square_norm(delta)


def _adam_in_one_pass(
    delta: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """Update the moments, and take mean / (sqrt(square) + eps) from `delta`, by torch's fused kernel for Adam."""
    torch._fused_adam_(
        [delta],
        [gradient],
        [mean],
        [square],
        [],
        [LATE],
        lr=1.0,
        beta1=beta1,
        beta2=beta2,
        weight_decay=0.0,
        eps=eps,
        amsgrad=False,
        maximize=False,
    )


def _adam_in_steps(
    delta: torch.Tensor,
    gradient: torch.Tensor,
    mean: torch.Tensor,
    square: torch.Tensor,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """The same by single operations, for devices where the kernel wants its arguments otherwise."""
    mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    delta.addcdiv_(mean, square.sqrt().add_(eps), value=-1)


def _square_norm(values: torch.Tensor) -> float:
    flat = values.view(-1)
    return torch.dot(flat, flat).item()


def _rate_correction(group: dict[str, Any], step: float) -> float:
    if not group["bias_correction"]:
        return 1.0
    beta1, beta2 = group["betas"]
    return math.sqrt(1 - beta2**step) / (1 - beta1**step)


def trust_ratio(weight_norm: float, delta_norm: float, clamp_value: float) -> float:
    """min(|p|, clamp) / |delta|; 1 if either norm is 0."""
    return min(weight_norm, clamp_value) / delta_norm if weight_norm and delta_norm else 1.0
