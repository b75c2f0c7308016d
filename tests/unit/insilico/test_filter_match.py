"""Images matched with filters over angles and places."""

import numpy as np
import pytest
import torch
from torch import nn

from december_plugin.errors import SettingsError, StimulusError
from december_plugin.insilico import AscentSettings, match_filters, maximally_exciting_images
from december_plugin.simulate.image_model import FeatureBank
from helpers.insilico_models import Model, Readouts, gabor


def correlation_by_loops(image, planted, quarter, dy, dx):
    height, width = image.shape
    tall, wide = planted.shape
    image, planted = np.rot90(image, quarter), planted - planted.mean()
    image = np.pad(image - image.mean(), max(planted.shape))
    top = max(planted.shape) + (height - tall) // 2 + dy
    left = max(planted.shape) + (width - wide) // 2 + dx
    part = image[top : top + tall, left : left + wide]
    return (part * planted).sum() / np.linalg.norm(image) / np.linalg.norm(planted)


def test_the_best_of_all_quarter_turns_and_places_is_found():
    rng = np.random.default_rng(0)
    images, planted = rng.normal(size=(3, 9, 9)), rng.normal(size=(3, 5, 4))
    found = match_filters(images, planted, n_angles=4)
    shifts = range(-7, 8)
    for number in range(3):
        every = {
            (quarter, dy, dx): correlation_by_loops(images[number], planted[number], quarter, dy, dx)
            for quarter in range(4)
            for dy in shifts
            for dx in shifts
        }
        best = max(every, key=every.get)
        assert found.correlations[number] == pytest.approx(every[best])
        assert (found.angles[number] / 90, *found.shifts[number]) == best


def test_turned_and_moved_filters_are_recognised_and_others_are_not():
    planted = np.stack([gabor((11, 11), 0.3), gabor((11, 11), 1.0)])
    shown = np.stack([gabor((21, 25), 1.2, center=(3, -2)), gabor((21, 25), 1.0, wavelength=11.0)])
    found = match_filters(shown, planted)
    assert found.correlations[0] > 0.95
    assert found.correlations[1] < 0.8
    assert match_filters(shown, planted, n_angles=1).correlations[0] < 0.8


def test_a_pair_in_quadrature_matches_any_phase():
    even, odd = (np.stack([gabor((13, 13), 0.3, phase)] * 3) for phase in (0, np.pi / 2))
    shown = np.stack([gabor((21, 21), 0.3, phase, center=(2, -1)) for phase in (0.4, 1.7, 3.0)])
    assert match_filters(shown, even, partners=odd, n_angles=1).correlations.min() > 0.97


class SimpleCells(nn.Module):
    """The rectified features of a simulated recording, each at the middle of the image, as neurons."""

    def __init__(self, bank):
        super().__init__()
        kernels = np.flip(bank.even, axis=(1, 2)).copy()  # the simulator convolves, torch correlates
        self.kernels = nn.Parameter(torch.from_numpy(kernels).float()[:, None])

    def forward(self, x, shift=None, **_):
        maps = nn.functional.conv2d(x, self.kernels)
        return nn.functional.softplus(maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2])


def test_images_of_simulated_simple_cells_are_their_planted_filters():
    bank = FeatureBank.draw(4, 9, (20, 20), 0, cells="simple_and_complex")
    model = Model({"a": SimpleCells(bank)})
    assert isinstance(model.readout, Readouts)
    settings = AscentSettings(norm=5.0, n_starts=1)
    exciting = maximally_exciting_images(model, {"a": range(3)}, (1, 20, 20), settings=settings)
    planted = np.flip(bank.even, axis=(1, 2))[:3]
    assert match_filters(exciting.images, planted, n_angles=1).correlations.min() > 0.97
    quarter = match_filters(np.rot90(exciting.images, axes=(2, 3)), planted, n_angles=4)
    assert quarter.correlations.min() > 0.97


def test_what_does_not_fit_is_said():
    images = np.random.default_rng(0).normal(size=(2, 8, 8))
    with pytest.raises(SettingsError, match=r"filters are \(2, 9, 3\) for images \(2, 8, 8\)"):
        match_filters(images, np.ones((2, 9, 3)) * np.arange(3))
    with pytest.raises(SettingsError, match=r"images are \(8, 8\)"):
        match_filters(images[0], images)
    with pytest.raises(StimulusError, match="number 1 of the images is constant"):
        match_filters(np.stack([images[0], np.zeros((8, 8))]), images)
    with pytest.raises(StimulusError, match="filters hold NaN"):
        match_filters(images, images * np.nan)
