"""The stimuli by which a training measures its features: few, the same each time, and without a trace."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from december_plugin.training.covariance import CovarianceStimuli
from december_plugin.training.random_state import get_random_state, loader_generators
from helpers.interrupted import Noisy, as_bytes, loaders_of
from helpers.trainings import BATCH_SIZE, N_TRAIN, make_model

CPU = torch.device("cpu")


def stimuli_of(loaders, *, seed=1):
    return CovarianceStimuli(loaders["train"], loader_generators(loaders), CPU, seed=seed)


@pytest.mark.parametrize("own_generators", [False, True])
def test_neither_drawing_nor_measuring_leaves_a_trace(own_generators):
    loaders, model = loaders_of(Noisy, own_generators=own_generators), make_model()
    model.core.dropout = nn.Dropout(0.5)  # not used, but it has a mode
    model.train()
    model.core.dropout.eval()
    generators = loader_generators(loaders)
    assert len(generators) == 4 * own_generators

    def everything():
        modes = [module.training for module in model.modules()]
        return as_bytes([get_random_state(generators, CPU), dict(model.state_dict()), modes])

    before = everything()
    stimuli = stimuli_of(loaders)
    stimuli.covariance_of(model)
    assert everything() == before
    assert model.core.features.layer0.norm.num_batches_tracked == 0


@pytest.mark.parametrize("kind", [Noisy, functools.partial(Noisy, unit_ids=False)])
def test_every_process_draws_the_same_stimuli(kind):
    """Also where a dataset draws from all global generators for every image, and one has drawn from them before."""
    first = stimuli_of(loaders_of(kind, own_generators=True))
    torch.rand(7), np.random.rand(3)
    again = stimuli_of(loaders_of(kind, own_generators=True))
    other = stimuli_of(loaders_of(kind, own_generators=True), seed=2)
    assert as_bytes(first.batches) == as_bytes(again.batches)
    assert as_bytes(first.batches) != as_bytes(other.batches)
    model = make_model()
    assert as_bytes(first.covariance_of(model)) == as_bytes(again.covariance_of(model))


def test_few_stimuli_of_each_session_and_no_responses():
    """A quarter of the training stimuli, 40 of one session and 27 of the other, and not fewer than ten."""
    assert N_TRAIN // 4 == BATCH_SIZE == 10
    stimuli = stimuli_of(loaders_of())
    assert {key: sum(len(batch["inputs"]) for batch in each) for key, each in stimuli.batches.items()} == {
        "one": 10,
        "two": 10,
    }
    assert all(batch["responses"] is None for each in stimuli.batches.values() for batch in each)


def test_the_covariance_is_that_of_the_present_features():
    model, stimuli = make_model().eval(), stimuli_of(loaders_of())
    received = []
    with torch.no_grad():
        for data_key, batches in stimuli.batches.items():
            readout = model.readout[data_key]
            channels = model.core(torch.cat([batch["inputs"] for batch in batches]))
            grid = readout.mu.reshape(1, 1, -1, 2).expand(len(channels), -1, -1, -1)
            at_neurons = nn.functional.grid_sample(channels, grid, align_corners=True)[:, :, 0]
            received += list(at_neurons.permute(2, 1, 0).numpy())
    expected = np.mean([np.cov(features) for features in received], axis=0)
    np.testing.assert_allclose(stimuli.covariance_of(model), expected, rtol=1e-5, atol=1e-7)
    with torch.no_grad():
        for parameter in model.core.parameters():
            parameter.mul_(2)
    assert not np.allclose(stimuli.covariance_of(model), expected)
