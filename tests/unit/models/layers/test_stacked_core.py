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


def trained_for_a_step(kind, settings):
    torch.manual_seed(0)
    core = kind(1, 4, **SETTINGS, **settings)
    images = torch.randn(6, 1, 11, 12)
    output = core(images)
    penalty = core.regularizer()
    (output.square().sum() + penalty).backward()
    return core, output, penalty, [parameter.grad for parameter in core.parameters()]


@pytest.mark.parametrize("name", CASES)
def test_the_numbers_are_those_of_neuralpredictors_to_the_last_bit(name):
    ours, theirs = (trained_for_a_step(kind, CASES[name]) for kind in (StackedCore, Stacked2dCore))
    assert torch.equal(ours[1], theirs[1])
    assert torch.equal(ours[2], theirs[2])
    assert all(torch.equal(one, other) for one, other in zip(ours[3], theirs[3], strict=True))
    state, expected = ours[0].state_dict(), theirs[0].state_dict()
    assert list(state) == list(expected)
    assert all(torch.equal(state[key], expected[key]) for key in state)


def test_an_elu_is_only_replaced_where_it_is_not_shifted():
    kinds = {
        name: type(StackedCore(1, 4, **SETTINGS, **CASES[name]).features.layer0.nonlin)
        for name in ("all layers", "shifted")
    }
    assert kinds["all layers"] is nn.ELU
    assert kinds["shifted"].__name__ == "AdaptiveELU"
