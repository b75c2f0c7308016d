"""How far a core is from rotation equivariance."""

import re

import pytest
import torch
from torch import nn

from december_plugin.errors import MisfitError
from december_plugin.models import equivariant_core_gaussian_readout, stacked_core_gaussian_readout
from december_plugin.models.equivariance import check_equivariance, equivariance_error, orientations_of
from helpers.image_models import INFO, SMALL, TURNED


@pytest.fixture
def images():
    return torch.randn(6, 1, 9, 13, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def core():
    return equivariant_core_gaussian_readout(None, 1, data_info=INFO, **{**TURNED, "orientations": 8}).core


def test_an_equivariant_core_passes_and_stays_as_it_was(core, images):
    core.train()
    before = {name: value.clone() for name, value in core.state_dict().items()}
    assert check_equivariance(core, images, 8) < 1e-5
    assert core.training
    assert all(torch.equal(value, before[name]) for name, value in core.state_dict().items())


def test_the_error_is_that_of_plain_loops(images):
    core = nn.Conv2d(1, 8, 3, bias=False)
    found = equivariance_error(core, images, 4)
    with torch.no_grad():
        output, turned = core(images), core(images.rot90(1, (2, 3)))
    errors = []
    for direction in (1, -1):
        squares = []
        for orientation in range(4):
            for feature in range(2):
                source = output[:, ((orientation - direction) % 4) * 2 + feature]
                squares.append((turned[:, orientation * 2 + feature] - source.rot90(1, (1, 2))).square().mean())
        errors.append(torch.stack(squares).mean())
    assert found == pytest.approx(float((min(errors) / output.var(correction=0)).sqrt()), rel=1e-5)
    assert found > 0.1


def test_a_core_whose_orientations_run_the_other_way_is_equivariant(core, images):
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.core = core

        def forward(self, x):
            return self.core(x).unflatten(1, (8, 2)).flip(1).flatten(1, 2)

    assert equivariance_error(Backwards(), images, 8) < 1e-5


def test_cores_that_are_refused(core, images):
    plain = stacked_core_gaussian_readout(None, 1, data_info=INFO, grid_mean_predictor=None, **SMALL).core
    message = (
        r"^the core is not rotation-equivariant: turning the images by 90 degrees changes its output by [0-9.]+ of its "
        r"standard deviation beyond a shift of 4 orientations by 1; 0\.001 is allowed\."
    )
    with pytest.raises(MisfitError, match=message):
        check_equivariance(plain, images, 4)
    with pytest.raises(MisfitError, match="changes its output by inf of its standard deviation"):
        check_equivariance(nn.Threshold(1e9, 0.0), images.expand(-1, 4, -1, -1), 4)
    with pytest.raises(MisfitError, match=re.escape("n_orientations is 6; it must be a multiple of 4")):
        equivariance_error(core, images, 6)
    with pytest.raises(MisfitError, match=re.escape("with a multiple of 12 channels.")):
        equivariance_error(core, images, 12)
    whole = nn.Sequential(nn.Flatten(), nn.Linear(9 * 13, 8 * 9 * 13), nn.Unflatten(1, (8, 9, 13)))
    with pytest.raises(MisfitError, match="is \\(9, 13\\) and for the original ones \\(9, 13\\); give square images"):
        equivariance_error(whole, images, 4)
    fixed = nn.Sequential(nn.Conv2d(1, 8, 3), nn.LayerNorm([8, 7, 11]))
    with pytest.raises(
        MisfitError, match=r"^the core cannot take images of 13 x 9 pixels, which those of 9 x 13 become"
    ):
        equivariance_error(fixed, images, 4)


@pytest.mark.parametrize(
    ("name", "config", "expected"),
    [
        ("december_plugin.models.equivariant_core_gaussian_readout", {}, 8),
        ("december_plugin.models.equivariant_core_factorized_readout", {"orientations": 4}, 4),
        ("december_plugin.models.equivariant.equivariant_core_gaussian_readout", {"orientations": 12}, 12),
        ("december_plugin.models.stacked_core_gaussian_readout", {}, 1),
        ("my_lab.models.equivariant_core_gaussian_readout", {"orientations": 4}, 1),
        ("december_plugin.models.sessions_of", {"orientations": 4}, 1),
    ],
)
def test_orientations_are_those_of_the_model_function(name, config, expected):
    assert orientations_of(name, config) == expected
