"""LAMB against a plain transcription of its formulas."""

from __future__ import annotations

import copy
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import model
from model import Lamb, LeanAlbertForPreTraining, parameter_groups
from model.blockwise_8bit import codebook
from model.lamb_state import chunks_of
from model.lamb_update import _adam_in_one_pass, _adam_in_steps, _advance_codes, _advance_moments


def plain_lamb_step(p, g, m, v, t, *, lr, b1, b2, eps, wd, bias_correction=True):
    """One update of one tensor, as the formulas stand."""
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    delta = m / (v.sqrt() + eps) + wd * p
    norms = p.norm(), delta.norm()
    ratio = norms[0] / norms[1] if all(norms) else 1.0
    c = math.sqrt(1 - b2**t) / (1 - b1**t) if bias_correction else 1.0
    return p - lr * c * ratio * delta, m, v


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("bias_correction", [True, False])
def test_matches_the_formulas_with_clipping_over_all_parameters(bias_correction, threads):
    torch.set_num_threads(threads)
    weights = [torch.randn(7, 5), torch.randn(5), torch.zeros(3), torch.randn(300, 301)]
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


def stepped(dtype=torch.float32, steps=3, **options):
    """An optimizer over one parameter of 9,999 values after a few steps, and the parameter."""
    generator = torch.Generator().manual_seed(4)
    parameter = torch.nn.Parameter(torch.randn(99, 101, generator=generator).to(dtype))
    optimizer = Lamb([parameter], **options)
    for _ in range(steps):
        parameter.grad = torch.randn(99, 101, generator=generator).to(dtype)
        optimizer.step()
    return optimizer, parameter


KINDS = {"fp32": {}, "8 bits": {"state_bits": 8, "min_8bit_size": 1}}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_state_round_trip_is_exact(tmp_path, dtype, options):
    optimizer, parameter = stepped(dtype, **options)
    torch.save(optimizer.state_dict(), tmp_path / "state.pt")
    twin = torch.nn.Parameter(parameter.detach().clone())
    other = Lamb([twin], **options)
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for name, value in optimizer.state[parameter].items():
        assert other.state[twin][name].dtype == value.dtype
        assert torch.equal(other.state[twin][name], value)
    twin.grad = parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    other.step()
    assert torch.equal(twin, parameter)


def test_8_bit_steps_are_the_formulas_with_rounding_between_steps():
    optimizer, parameter = stepped(steps=1, max_grad_norm=None, **KINDS["8 bits"])
    state = {name: value.clone() for name, value in optimizer.state[parameter].items()}
    before = parameter.detach().clone().flatten()
    moments = []
    for name in ("exp_avg", "exp_avg_sq"):
        table = codebook(name == "exp_avg", torch.device("cpu"))
        scale = state[f"{name}_absmax"].repeat_interleave(4096)[:9999]
        moments.append(table[state[f"{name}_codes"].long()] * scale)
    parameter.grad = torch.randn(99, 101)
    optimizer.step()
    gradient = parameter.grad.flatten()
    options = {"lr": 2.5e-3, "b1": 0.9, "b2": 0.95, "eps": 1e-6, "wd": 0.01}
    expected, mean, _ = plain_lamb_step(before, gradient, *moments, 2, **options)
    torch.testing.assert_close(parameter.detach().flatten(), expected, rtol=1e-5, atol=1e-6)
    scaled = mean[:4096] / mean[:4096].abs().max()
    table = codebook(True, torch.device("cpu"))
    nearest = (scaled[:, None] - table).abs().argmin(1)
    found = optimizer.state[parameter]["exp_avg_codes"][:4096].long()
    assert (found != nearest).float().mean() < 1e-3
    assert (found - nearest).abs().max() <= 1


def test_8_bit_state_stays_close_to_fp32_and_takes_two_bytes_a_value():
    parameters = []
    for options in KINDS.values():
        optimizer, parameter = stepped(steps=5, lr=0.01, **options)
        parameters.append(parameter.detach())
    difference = (parameters[0] - parameters[1]).norm()
    start = stepped(steps=0)[1].detach()
    assert difference < 0.05 * (parameters[0] - start).norm()
    assert sum(v.numel() * v.element_size() for v in optimizer.state[parameter].values()) / 9999 < 2.1


def test_small_parameters_keep_fp32_state():
    optimizer, parameter = stepped(state_bits=8)
    assert optimizer.state[parameter]["exp_avg"].dtype == torch.float32


def test_a_larger_parameter_in_a_later_step_gets_its_scratch_memory():
    parameters = [torch.nn.Parameter(torch.full((rows, 4096), 0.5)) for rows in (20, 90)]
    alone = torch.nn.Parameter(parameters[1].detach().clone())
    both = Lamb(parameters, state_bits=8, max_grad_norm=None)
    for p in parameters:  # first the small one, then both
        p.grad = torch.linspace(-1, 1, p.numel()).view_as(p)
        both.step()
    alone.grad = parameters[1].grad
    Lamb([alone], state_bits=8, max_grad_norm=None).step()
    assert torch.equal(alone, parameters[1])


def test_threads_do_not_change_the_result():
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        optimizer = Lamb([torch.nn.Parameter(torch.linspace(-1, 1, 200_000))], state_bits=8)
        parameter = optimizer.param_groups[0]["params"][0]
        parameter.grad = torch.linspace(3, -2, 200_000)
        optimizer.step()
        results.append(parameter.detach().clone())
    torch.testing.assert_close(*results, rtol=1e-6, atol=0)  # torch sums the gradient norm per thread


def spoiled(state, name):
    """A state that no optimizer can have written."""
    if name == "missing moment":
        del state["exp_avg_codes"]
    elif name == "wrong shape":
        state["exp_avg_codes"] = state["exp_avg_codes"][:-1]
    elif name == "float codes":
        state["exp_avg_codes"] = state["exp_avg_codes"].float()
    elif name == "not finite":
        state["exp_avg_absmax"][0] = float("nan")
    elif name == "negative second moment":
        state["exp_avg_sq_codes"][5] = 0
    elif name == "negative step":
        state["step"].fill_(-1)
    return state


@pytest.mark.parametrize(
    "name",
    ["missing moment", "wrong shape", "float codes", "not finite", "negative second moment", "negative step"],
)
def test_an_impossible_state_is_refused_and_the_present_one_kept(name):
    optimizer, parameter = stepped(**KINDS["8 bits"])
    content = copy.deepcopy(optimizer.state_dict())
    before = copy.deepcopy(optimizer.state[parameter])
    spoiled(content["state"][0], name)
    with pytest.raises(ValueError, match="parameter 0"):
        optimizer.load_state_dict(content)
    assert all(torch.equal(before[key], value) for key, value in optimizer.state[parameter].items())


def test_learning_rate_follows_a_scheduler():
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = Lamb([parameter], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5**step)
    parameter.grad = torch.ones(2, 2)
    optimizer.step()
    scheduler.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_biases_and_norms_do_not_decay(small_config):
    network = LeanAlbertForPreTraining(small_config())
    names = {p: name for name, p in network.named_parameters()}
    decayed, free = parameter_groups(network, 0.01)
    assert {len(decayed["params"]) + len(free["params"])} == {len(names)}
    assert all(names[p].endswith(("bias", "norm.weight")) for p in free["params"])
    assert all(names[p].endswith("weight") and "norm" not in names[p] for p in decayed["params"])


def test_the_fused_kernel_and_single_operations_agree():
    given = [torch.randn(3, 700), *(torch.randn(3, 700) for _ in range(2)), torch.rand(3, 700)]
    results = []
    for adam in (_adam_in_one_pass, _adam_in_steps):
        delta, gradient, mean, square = (tensor.clone() for tensor in given)
        adam(delta, gradient, mean, square, 0.9, 0.95, 1e-6)
        assert torch.equal(gradient, given[1])
        results.append((delta, mean, square))
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_the_compiled_kernel_and_torchs_operations_write_the_same_codes():
    first, parameter = stepped(**KINDS["8 bits"])
    gradient = torch.randn(parameter.numel()) * torch.rand(parameter.numel()) ** 4
    states = [copy.deepcopy(dict(first.state[parameter])) for _ in range(2)]
    for chunk in chunks_of(parameter.numel()):
        part, slope = (t.flatten()[chunk.values].view(chunk.shape) for t in (parameter.detach(), gradient))
        results = []
        for state, advance, options in (
            (states[0], _advance_codes, {"gradient": slope, "scale": 0.3}),
            (states[1], _advance_moments, {"gradient": slope * 0.3}),
        ):
            delta = torch.empty(chunk.shape)
            norms = advance(state, chunk, weights=part, delta=delta, group=first.param_groups[0], **options)
            results.append((delta, *norms))
        torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)
    for name in ("exp_avg", "exp_avg_sq"):
        torch.testing.assert_close(states[0][f"{name}_absmax"], states[1][f"{name}_absmax"])
        codes = [state[f"{name}_codes"].int() for state in states]
        assert (codes[0] - codes[1]).abs().max() <= 1  # where a sum was rounded otherwise beside a midpoint
        assert (codes[0] != codes[1]).float().mean() < 1e-3


def test_the_kernel_works_where_nothing_can_be_kept(tmp_path):
    """numba keeps what it has compiled beside the source or in the home folder: files stand in place of both."""
    sources = shutil.copytree(
        Path(model.__file__).parent, tmp_path / "model", ignore=shutil.ignore_patterns("__pycache__")
    )
    (sources / "__pycache__").touch()
    (tmp_path / "home").touch()
    program = """
import torch
from model import Lamb
p = torch.nn.Parameter(torch.ones(5000))
p.grad = torch.ones(5000)
Lamb([p], state_bits=8, min_8bit_size=1).step()
assert (p < 1).all()
"""
    environment = {**os.environ, "HOME": str(tmp_path / "home"), "PYTHONPATH": str(tmp_path)}
    for name in ("XDG_CACHE_HOME", "NUMBA_CACHE_DIR"):
        environment.pop(name, None)
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, cwd=tmp_path)
