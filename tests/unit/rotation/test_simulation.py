"""Simulated readout vectors: what was planted is there."""

import re

import numpy as np
import pytest

from december_plugin.errors import SettingsError
from december_plugin.rotation import shifted
from december_plugin.rotation.simulation import distance_of_noise, simulated_readouts, toy_readouts

ORIENTATIONS = 8


def test_tuning_curves_have_the_covariance_of_the_periodic_kernel():
    # One curve per seed, read at angles that are random: over seeds, a stationary process of variance 1.
    curves = np.stack([toy_readouts(1, length_scale=0.8, seed=seed).readouts[0] for seed in range(3000)])
    found = curves.T @ curves / len(curves)
    apart = 2 * np.pi / ORIENTATIONS * (np.arange(ORIENTATIONS)[:, None] - np.arange(ORIENTATIONS))
    np.testing.assert_allclose(found, np.exp(-2 * np.sin(apart / 2) ** 2 / 0.8**2), atol=0.09)


def test_neurons_of_a_type_are_shifts_of_each_other():
    toy = toy_readouts(200, n_orientations=64, seed=3)
    aligned = shifted(toy.readouts, -toy.angles, 64)
    for kind in range(2):
        assert aligned[toy.types == kind].std(axis=0).max() < 0.02  # of the interpolation
    assert np.abs(aligned[toy.types == 0][0] - aligned[toy.types == 1][0]).max() > 0.5


@pytest.mark.parametrize("features", ["sparse", "dense"])
def test_types_have_a_mean_square_of_one_in_the_features_they_have(features):
    found = simulated_readouts(400, n_orientations=32, features=features, noise=0.0, seed=2)
    vectors = found.readouts.reshape(400, 32, 16)
    np.testing.assert_allclose((vectors**2).mean(axis=(1, 2)), 1, rtol=1e-3)
    active = (np.abs(vectors).max(axis=1) > 0).sum(axis=1)
    assert set(active) == ({4} if features == "sparse" else {16})
    assert set(found.types) == set(range(10))
    noisy = simulated_readouts(400, n_orientations=32, features=features, noise=0.5, seed=2)
    np.testing.assert_array_equal(noisy.types, found.types)
    assert (noisy.readouts - found.readouts).std() == pytest.approx(0.5, rel=0.02)


def test_the_distance_of_noise():
    noise = np.random.default_rng(0).normal(scale=0.7, size=(2, 20_000, 5))
    expected = np.linalg.norm(noise[0] - noise[1], axis=1).mean()
    assert distance_of_noise(0.7, 5) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"features": "few"}, "features is 'few'"),
        ({"n_features": 3}, "n_features is 3, but sparse types have 4 of them. Use more, or dense ones."),
        ({"length_scale": 0.01}, "length_scale is 0.01; it must be at least 0.1 radians."),
        ({"noise": -1}, "noise is -1"),
        ({"n_neurons": 0}, "n_neurons is 0"),
        ({"n_types": 0}, "n_types is 0"),
    ],
)
def test_settings_that_are_not_allowed(settings, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        simulated_readouts(**settings)
