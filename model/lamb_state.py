"""Where LAMB keeps the two moments of a parameter: plain fp32 tensors, or 8-bit codes.

Both kinds are read and written in chunks of whole blocks: small enough for a core's cache, large enough
that the time goes into arithmetic and not into calls. State that comes from outside is checked before it
is believed: names, shapes, dtypes, and values that no optimizer can have written (not finite, a negative
second moment).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch

from model.blockwise_8bit import BLOCK, dequantize, quantize

MOMENTS = ("exp_avg", "exp_avg_sq")
CHUNK = 64 * BLOCK
# below, two bytes a value save nothing, and small tensors (biases, norms) are sensitive
MIN_8BIT_SIZE = 2**16

State = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Chunk:
    """A range of a flattened parameter, and the blocks it consists of."""

    values: slice
    blocks: slice
    shape: tuple[int, int]


def chunks_of(numel: int, size: int = CHUNK) -> Iterator[Chunk]:
    """Cut `numel` values into chunks of whole blocks, and a shorter last block on its own."""
    whole = numel - numel % BLOCK
    for start in range(0, whole, size):
        stop = min(start + size, whole)
        count = (stop - start) // BLOCK
        yield Chunk(slice(start, stop), slice(start // BLOCK, start // BLOCK + count), (count, BLOCK))
    if numel > whole:
        yield Chunk(slice(whole, numel), slice(whole // BLOCK, whole // BLOCK + 1), (1, numel - whole))


def moment_bytes(numel: int, bits: int) -> int:
    """Size of one moment of a parameter of so many values, if it has at least `MIN_8BIT_SIZE`.

    >>> moment_bytes(2**20, 8), moment_bytes(2**20, 32)
    (1049600, 4194304)
    """
    return numel + 4 * -(-numel // BLOCK) if bits == 8 and numel >= MIN_8BIT_SIZE else 4 * numel


def new_state(p: torch.Tensor, device: torch.device, *, quantized: bool) -> State:
    """The state of a parameter that has seen no gradient: all moments exactly 0."""
    state = {"step": torch.zeros((), dtype=torch.float32)}
    for name in MOMENTS:
        if quantized:
            blocks = -(-p.numel() // BLOCK)
            state[f"{name}_codes"] = torch.zeros(p.numel(), dtype=torch.uint8, device=device)
            state[f"{name}_absmax"] = torch.zeros(blocks, dtype=torch.float32, device=device)
        else:
            state[name] = torch.zeros(p.shape, dtype=torch.float32, device=device)
    return state


def read_moment(state: State, name: str, chunk: Chunk) -> torch.Tensor:
    """Moment `name` of a chunk, fp32 [blocks, size]: the state itself, or a decoded copy."""
    if name in state:
        return state[name].view(-1)[chunk.values].view(chunk.shape)
    codes = state[f"{name}_codes"][chunk.values].view(chunk.shape)
    return dequantize(codes, state[f"{name}_absmax"][chunk.blocks], signed=name == "exp_avg")


def write_moment(state: State, name: str, chunk: Chunk, values: torch.Tensor) -> None:
    """Store what `read_moment` gave and the caller updated in place."""
    if name not in state:
        codes, absmax = quantize(values, signed=name == "exp_avg")
        state[f"{name}_codes"][chunk.values] = codes.flatten()
        state[f"{name}_absmax"][chunk.blocks] = absmax


def check_state(given: Mapping[str, torch.Tensor], expected: State, label: str) -> None:
    """Raise ValueError, naming parameter `label`, unless `given` can stand in the place of `expected`."""
    if set(given) != set(expected):
        raise ValueError(f"optimizer state of {label} has {sorted(given)}, not {sorted(expected)}")
    for name, blank in expected.items():
        value = torch.as_tensor(given[name])
        if value.shape != blank.shape or value.is_floating_point() != blank.is_floating_point():
            found, wanted = (f"{t.dtype} {tuple(t.shape)}" for t in (value, blank))
            raise ValueError(f"{name} of {label} is {found}, not {wanted}")
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise ValueError(f"{name} of {label} is not finite")
        if name in ("step", "exp_avg_absmax", "exp_avg_sq_absmax", "exp_avg_sq") and bool((value < 0).any()):
            raise ValueError(f"{name} of {label} is negative")
    if "exp_avg_sq_codes" in given:
        _check_codes(given["exp_avg_sq_codes"], given["exp_avg_sq_absmax"], label)


def _check_codes(codes: torch.Tensor, absmax: torch.Tensor, label: str) -> None:
    """Code 0 stands for -1, which a second moment is only before its first update, when absmax is 0."""
    blocks = (codes == 0).nonzero().flatten() // BLOCK
    if bool((absmax[blocks] > 0).any()):
        raise ValueError(f"exp_avg_sq of {label} is negative")
