"""LAMB against a plain transcription of its formulas."""

from __future__ import annotations

import math

import pytest
import torch

from model import Lamb, parameter_groups


def plain_lamb_step(p, g, m, v, t, *, lr, b1, b2, eps, wd, bias_correction=True):
    """One update of one tensor, as the formulas stand."""
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    delta = m / (v.sqrt() + eps) + wd * p
    norms = p.norm(), delta.norm()
    ratio = norms[0] / norms[1] if all(norms) else 1.0
    c = math.sqrt(1 - b2**t) / (1 - b1**t) if bias_correction else 1.0
    return p - lr * c * ratio * delta, m, v


@pytest.mark.parametrize("bias_correction", [True, False])
def test_matches_the_formulas_with_clipping_over_all_parameters(bias_correction):
    weights = [torch.randn(7, 5), torch.randn(5), torch.zeros(3)]
    parameters = [torch.nn.Parameter(w.clone()) for w in weights]
    optimizer = Lamb(parameters, lr=0.01, bias_correction=bias_correction)
    state = [(w, torch.zeros_like(w), torch.zeros_like(w)) for w in weights]
    for step in range(1, 5):
        gradients = [torch.randn_like(w) * 10 for w in weights]
        norm = torch.cat([g.flatten() for g in gradients]).norm()
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        options = {
            "lr": 0.01,
            "b1": 0.9,
            "b2": 0.95,
            "eps": 1e-6,
            "wd": 0.01,
            "bias_correction": bias_correction,
        }
        state = [
            plain_lamb_step(p, g / (norm + 1e-6), m, v, step, **options)
            for (p, m, v), g in zip(state, gradients, strict=True)
        ]
    for parameter, (expected, _, _) in zip(parameters, state, strict=True):
        torch.testing.assert_close(parameter.data, expected, rtol=1e-5, atol=1e-6)


def test_step_without_any_gradient_only_creates_the_state():
    parameter = torch.nn.Parameter(torch.randn(4, 4))
    before = parameter.detach().clone()
    optimizer = Lamb([parameter])
    parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    assert torch.equal(parameter, before)
    assert set(optimizer.state[parameter]) == {"step", "exp_avg", "exp_avg_sq"}
    assert optimizer.state[parameter]["step"] == 0


def test_non_finite_gradient_changes_nothing():
    parameter = torch.nn.Parameter(torch.ones(4))
    optimizer = Lamb([parameter])
    parameter.grad = torch.tensor([0.0, float("nan"), 1.0, 1.0])
    with pytest.raises(FloatingPointError, match="gradient norm"):
        optimizer.step()
    assert torch.equal(parameter, torch.ones(4))


def test_state_round_trip_is_exact_for_half_precision_parameters():
    parameter = torch.nn.Parameter(torch.randn(8).bfloat16())
    optimizer = Lamb([parameter])
    parameter.grad = torch.randn(8).bfloat16()
    optimizer.step()
    other = Lamb([torch.nn.Parameter(parameter.detach().clone())])
    other.load_state_dict(optimizer.state_dict())
    for name, value in optimizer.state[parameter].items():
        loaded = next(iter(other.state.values()))[name]
        assert loaded.dtype == value.dtype
        assert torch.equal(loaded, value)


def test_learning_rate_follows_a_scheduler():
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Lamb([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    parameter.grad = torch.ones(2, 2)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_biases_and_norms_do_not_decay(small_config):
    from model import LeanAlbertForPreTraining

    model = LeanAlbertForPreTraining(small_config())
    names = {p: name for name, p in model.named_parameters()}
    decayed, free = parameter_groups(model, 0.01)
    assert {len(decayed["params"]) + len(free["params"])} == {len(names)}
    assert all(names[p].endswith(("bias", "norm.weight")) for p in free["params"])
    assert all(names[p].endswith("weight") and "norm" not in names[p] for p in decayed["params"])
