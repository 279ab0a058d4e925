"""LAMB (You et al. 2019, arXiv:1904.00962) as the published RuLeanALBERT recipe uses it.

Clipping by the global gradient norm is part of the step. `bias_correction` multiplies the learning rate by
sqrt(1 - b2^t) / (1 - b1^t): the trust ratio has normalised the update already, so nothing cancels (at
t = 1 with betas 0.9/0.95 the rate is 2.24 times the nominal one). That is the published behaviour, and
the default. A step in which every gradient is exactly zero only creates missing state: hivemind makes one
to allocate it, and LAMB would turn its weight decay into a full-sized update. A step with a non-finite
gradient norm raises FloatingPointError and changes nothing.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from model.blockwise_8bit import BLOCK
from model.lamb_state import MIN_8BIT_SIZE, check_state, new_state
from model.lamb_update import ScratchMemory, Workers, update

NO_DECAY_SUFFIXES = ("bias", "norm.weight")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two optimizer groups: everything with `weight_decay`, biases and norms without."""
    named = [(name.lower(), p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for n, p in named if not n.endswith(NO_DECAY_SUFFIXES)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if n.endswith(NO_DECAY_SUFFIXES)], "weight_decay": 0.0},
    ]


class Lamb(torch.optim.Optimizer):
    """LAMB with moments in fp32 or in 8 bits, on the parameter's device or on `state_device`.

    State per parameter: `step`, and `exp_avg` and `exp_avg_sq` as fp32 tensors; or, with `state_bits=8` and
    at least `min_8bit_size` values, `exp_avg_codes`, `exp_avg_absmax`, `exp_avg_sq_codes` and
    `exp_avg_sq_absmax` (2.002 bytes per value). With `state_device="cpu"` the whole update runs on the host.
    Besides, it holds scratch memory for one fp32 copy of the largest parameter, from its first step on.

    Example:
        >>> optimizer = Lamb(parameter_groups(model, weight_decay=0.01), lr=2.5e-3, state_bits=8)
        >>> loss.backward(); optimizer.step(); optimizer.zero_grad()
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        *,
        clamp_value: float = 1e9,
        max_grad_norm: float | None = 1.0,
        bias_correction: bool = True,
        state_bits: int = 32,
        min_8bit_size: int = MIN_8BIT_SIZE,
        state_device: torch.device | str | None = None,
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr {lr} must not be negative")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas {betas} must lie in [0, 1)")
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm {max_grad_norm} must be positive, or None for no clipping")
        if state_bits not in (8, 32):
            raise ValueError(f"state_bits {state_bits} must be 8 or 32")
        self.max_grad_norm = max_grad_norm
        self.state_bits = state_bits
        self.min_8bit_size = max(min_8bit_size, BLOCK)
        self.state_device = None if state_device is None else torch.device(state_device)
        self._memory = ScratchMemory()
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "clamp_value": clamp_value,
            "bias_correction": bias_correction,
        }
        super().__init__(params, defaults)

    # as they are without a decorator that keeps the compiler away from them, and loads all of it to do so: a second and
    # a half of a peer's start
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns the closure's loss if one was given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [
            (p, p.grad, group) for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        for p, _, _ in work:
            if not self.state[p]:
                self.state[p] = self._new_state(p)
        norm = _global_norm([gradient for _, gradient, _ in work])
        if not math.isfinite(norm):
            raise FloatingPointError(
                f"gradient norm is {norm}; parameters and optimizer state are left as they were"
            )
        if norm == 0:
            return loss
        scale = 1.0 if self.max_grad_norm is None else min(1.0, self.max_grad_norm / (norm + 1e-6))
        largest = max(p.numel() for p, _, _ in work)
        with Workers(torch.get_num_threads()) as workers:
            for p, gradient, group in work:
                update(p, gradient, self.state[p], group, scale, workers, self._memory, largest)
        return loss

    def _new_state(self, p: torch.Tensor) -> dict[str, torch.Tensor]:
        quantized = self.state_bits == 8 and p.numel() >= self.min_8bit_size
        return new_state(p, self.state_device or p.device, quantized=quantized)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state exactly; torch would cast the moments to the parameter's dtype and device.

        Raises ValueError, and keeps the present state, if anything in `state_dict` cannot be a state of
        these parameters: it may come from a checkpoint or from a stranger.
        """
        parameters = [p for group in self.param_groups for p in group["params"]]
        numbers = [i for group in state_dict["param_groups"] for i in group["params"]]
        if len(numbers) != len(parameters):
            raise ValueError(
                f"the state is of {len(numbers)} parameters, this optimizer has {len(parameters)}"
            )
        loaded = {}
        for number, p in zip(numbers, parameters, strict=True):
            if given := state_dict["state"].get(number):
                loaded[p] = self._new_state(p)
                check_state(given, loaded[p], f"parameter {number}")
                for name, blank in loaded[p].items():
                    blank.copy_(torch.as_tensor(given[name]))
        super().load_state_dict({**state_dict, "state": {}})
        self.state.update(loaded)


def _global_norm(gradients: list[torch.Tensor]) -> float:
    if not gradients:
        return 0.0
    norms = [torch.linalg.vector_norm(g, dtype=torch.float32).to("cpu") for g in gradients]
    return torch.linalg.vector_norm(torch.stack(norms)).item()
