"""The stacked core beside neuralpredictors' own: the same numbers from fewer operations."""

from __future__ import annotations

import pytest
import torch
from neuralpredictors.layers.cores import Stacked2dCore
from torch import nn

from december_plugin.models.layers.stacked_core import StackedCore

SETTINGS = {"input_kern": 5, "hidden_kern": 3, "gamma_input": 2.0, "input_regularizer": "LaplaceL2norm"}
CASES = {
    "as in SENSORIUM": {"layers": 3, "stack": -1, "depth_separable": True, "pad_input": False},
    "all layers": {"layers": 3, "stack": None},
    "skip": {"layers": 3, "skip": 2},
    "without batch norm": {"layers": 2, "batch_norm": False},
    "without a last nonlinearity": {"layers": 2, "final_nonlinearity": False},
    "linear": {"layers": 2, "linear": True},
    "shifted": {"layers": 2, "elu_shift": (0.5, 1.0)},
    "penalised hidden kernels": {"layers": 2, "gamma_hidden": 0.3},
}
PENALTIES = {
    "as in SENSORIUM": {"laplace_padding": None},
    "not padded": {"laplace_padding": 0},
    "a sum": {"use_avg_reg": False},
    "too large for one product": {"input_kern": 17, "laplace_padding": None},
    "masked by a Gaussian": {"input_regularizer": "GaussianLaplaceL2", "laplace_padding": None},
}


def trained_for_a_step(kind, settings):
    torch.manual_seed(0)
    core = kind(1, 4, **SETTINGS, **settings)
    output = core(torch.randn(6, 1, 11, 12))
    output.square().sum().backward()
    return core, output, [parameter.grad for parameter in core.parameters()]


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_neuralpredictors_to_the_last_bit(name):
    ours, theirs = (trained_for_a_step(kind, CASES[name]) for kind in (StackedCore, Stacked2dCore))
    assert torch.equal(ours[1], theirs[1])
    assert all(torch.equal(one, other) for one, other in zip(ours[2], theirs[2], strict=True))
    state, expected = ours[0].state_dict(), theirs[0].state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in state)


@pytest.mark.parametrize("settings", [*PENALTIES.values(), CASES["penalised hidden kernels"]], ids=str)
def test_the_penalty_is_that_of_neuralpredictors(settings):
    found = []
    for kind, dtype in ((StackedCore, torch.float32), (Stacked2dCore, torch.float64)):
        torch.manual_seed(0)
        core = kind(2, 4, **{**SETTINGS, "layers": 2, "pad_input": True, **settings}).to(dtype)
        penalty = core.regularizer()
        (3 * penalty).backward()
        found.append((penalty.detach(), core.features[0].conv.weight.grad))
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-6, check_dtype=False)


def test_an_elu_is_only_replaced_where_it_is_not_shifted():
    kinds = {
        name: type(StackedCore(1, 4, **SETTINGS, **CASES[name]).features.layer0.nonlin)
        for name in ("all layers", "shifted")
    }
    assert kinds["all layers"] is nn.ELU
    assert kinds["shifted"].__name__ == "AdaptiveELU"
