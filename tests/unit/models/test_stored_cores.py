"""Cores that are built from settings and weights alone."""

from __future__ import annotations

import pytest
import torch

from december_plugin.embeddings.batches import evaluating
from december_plugin.errors import SettingsError
from december_plugin.models import equivariant_core_factorized_readout, equivariant_core_gaussian_readout
from december_plugin.models.equivariance import check_equivariance
from december_plugin.models.stored_cores import stored_equivariant_core
from helpers.image_models import INFO

CONFIG = {"features": 2, "orientations": 4, "input_kern": 5, "hidden_kern": 3, "layers": 2, "gamma_readout": 0.1}


@pytest.mark.parametrize("function", [equivariant_core_gaussian_readout, equivariant_core_factorized_readout])
def test_a_core_answers_as_that_of_the_model(function):
    model = function(None, 1, data_info=INFO, **CONFIG)
    with torch.no_grad():
        for value in model.core.state_dict().values():
            if value.is_floating_point():
                value += 0.1 * torch.rand(value.shape)
    core, images = stored_equivariant_core(CONFIG, model.state_dict())
    assert images.shape[2] == images.shape[3]
    with evaluating(model.core), evaluating(core), torch.no_grad():
        assert torch.equal(core(images), model.core(images))
    assert check_equivariance(core, images, 4) < 1e-5


def test_weights_of_another_model():
    state = equivariant_core_gaussian_readout(None, 1, data_info=INFO, **CONFIG).state_dict()
    with pytest.raises(SettingsError, match="the stored weights are not those of a rotation-equivariant core with"):
        stored_equivariant_core({**CONFIG, "features": 3}, state)
    with pytest.raises(SettingsError, match="the stored weights are not those of a rotation-equivariant core with"):
        stored_equivariant_core(CONFIG, {})
    with pytest.raises(SettingsError, match="orientations is 0; it must be at least 4"):
        stored_equivariant_core({**CONFIG, "orientations": 0}, state)
