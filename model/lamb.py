"""LAMB (You et al. 2019, arXiv:1904.00962) as the published RuLeanALBERT recipe uses it.

Clipping by the global gradient norm is part of the step. `bias_correction` multiplies the learning rate by
sqrt(1 - b2^t) / (1 - b1^t): the trust ratio has normalised the update already, so nothing cancels (at
t = 1 with betas 0.9/0.95 the rate is 2.24 times the nominal one). That is the published behaviour, and
the default. A step in which every gradient is exactly zero only creates missing state: hivemind makes one
to allocate it, and LAMB would turn its weight decay into a full-sized update. A step with a non-finite
gradient norm raises FloatingPointError and changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

NO_DECAY_SUFFIXES = ("bias", "norm.weight")


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two optimizer groups: everything with `weight_decay`, biases and norms without."""
    named = [(name.lower(), p) for name, p in model.named_parameters() if p.requires_grad]
    return [
        {"params": [p for n, p in named if not n.endswith(NO_DECAY_SUFFIXES)], "weight_decay": weight_decay},
        {"params": [p for n, p in named if n.endswith(NO_DECAY_SUFFIXES)], "weight_decay": 0.0},
    ]


class Lamb(torch.optim.Optimizer):
    """LAMB with the moments in fp32, on the parameter's device or on `state_device`.

    Per parameter the state holds `step` (scalar), `exp_avg` and `exp_avg_sq`.

    Example:
        >>> optimizer = Lamb(parameter_groups(model, weight_decay=0.01), lr=2.5e-3)
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
        state_device: torch.device | str | None = None,
    ) -> None:
        if lr < 0:
            raise ValueError(f"lr {lr} must not be negative")
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas {betas} must lie in [0, 1)")
        if max_grad_norm is not None and max_grad_norm <= 0:
            raise ValueError(f"max_grad_norm {max_grad_norm} must be positive, or None for no clipping")
        self.max_grad_norm = max_grad_norm
        self.state_device = None if state_device is None else torch.device(state_device)
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "clamp_value": clamp_value,
            "bias_correction": bias_correction,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient; returns the closure's loss if one was given."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        work = [(p, p.grad, g) for g in self.param_groups for p in g["params"] if p.grad is not None]
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
        for p, gradient, group in work:
            self._update(p, gradient, group, scale)
        return loss

    def _new_state(self, p: torch.Tensor) -> dict[str, torch.Tensor]:
        device = self.state_device or p.device
        moments = {
            name: torch.zeros(p.shape, dtype=torch.float32, device=device)
            for name in ("exp_avg", "exp_avg_sq")
        }
        return {"step": torch.zeros((), dtype=torch.float32), **moments}

    def _update(self, p: torch.Tensor, gradient: torch.Tensor, group: dict[str, Any], scale: float) -> None:
        state, (beta1, beta2) = self.state[p], group["betas"]
        mean, square = state["exp_avg"], state["exp_avg_sq"]
        gradient = gradient.to(device=mean.device, dtype=torch.float32)
        weights = p.to(device=mean.device, dtype=torch.float32)
        state["step"] += 1
        mean.mul_(beta1).add_(gradient, alpha=(1 - beta1) * scale)
        square.mul_(beta2).addcmul_(gradient, gradient, value=(1 - beta2) * scale**2)
        delta = mean / square.sqrt().add_(group["eps"])
        if group["weight_decay"]:
            delta.add_(weights, alpha=group["weight_decay"])
        rate = group["lr"] * trust_ratio(weights, delta, group["clamp_value"])
        if group["bias_correction"]:
            step = state["step"].item()
            rate *= math.sqrt(1 - beta2**step) / (1 - beta1**step)
        weights.add_(delta, alpha=-rate)
        if weights is not p:
            p.copy_(weights)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state exactly: torch would cast the moments to the parameter's dtype and device."""
        super().load_state_dict(state_dict)
        numbers = [i for group in state_dict["param_groups"] for i in group["params"]]
        parameters = [p for group in self.param_groups for p in group["params"]]
        for number, p in zip(numbers, parameters, strict=True):
            if number in state_dict["state"]:
                self.state[p] = self._checked_state(number, p, state_dict["state"][number])

    def _checked_state(self, number: int, p: torch.Tensor, given: dict[str, Any]) -> dict[str, torch.Tensor]:
        expected = self._new_state(p)
        if set(given) != set(expected):
            raise ValueError(
                f"optimizer state of parameter {number} has {sorted(given)}, not {sorted(expected)}"
            )
        for name, blank in expected.items():
            value = torch.as_tensor(given[name])
            if value.shape != blank.shape:
                raise ValueError(
                    f"{name} of parameter {number}: shape {tuple(value.shape)}, not {tuple(blank.shape)}"
                )
            blank.copy_(value)
        return expected


def trust_ratio(weights: torch.Tensor, delta: torch.Tensor, clamp_value: float) -> float:
    """min(|p|, clamp) / |delta| over the whole tensor; 1 if either norm is 0."""
    weight_norm = min(weights.norm().item(), clamp_value)
    delta_norm = delta.norm().item()
    return weight_norm / delta_norm if weight_norm and delta_norm else 1.0


def _global_norm(gradients: list[torch.Tensor]) -> float:
    if not gradients:
        return 0.0
    norms = [torch.linalg.vector_norm(g, dtype=torch.float32).to("cpu") for g in gradients]
    return torch.linalg.vector_norm(torch.stack(norms)).item()
