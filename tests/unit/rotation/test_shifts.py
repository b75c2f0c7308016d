"""Shifts along the orientations, against plain loops over the paper's formulas."""

import math
import re

import numpy as np
import pytest
import torch

from december_plugin.embeddings.space import covariance_root
from december_plugin.errors import EmbeddingError, MisfitError
from december_plugin.rotation.shifts import (
    checked_readouts,
    cyclic_mean,
    power_spectra,
    relaxed_weights,
    shifted,
    weighted_shifts,
)

ORIENTATIONS, F = 8, 3


@pytest.fixture
def vectors():
    return np.random.default_rng(0).normal(size=(6, ORIENTATIONS * F))


def loop_shift(vector, angle, n_orientations):
    """Shift one vector as in equation 2 of the paper."""
    n_features = len(vector) // n_orientations
    x = (angle % (2 * math.pi)) * n_orientations / (2 * math.pi)
    i, g = math.floor(x), x - math.floor(x)
    found = np.zeros(len(vector))
    for o in range(n_orientations):
        for f in range(n_features):
            near = vector[((o - i) % n_orientations) * n_features + f]
            far = vector[((o - i - 1) % n_orientations) * n_features + f]
            found[o * n_features + f] = (1 - g) * near + g * far
    return found


@pytest.mark.parametrize("n_orientations", [1, 2, 4, 8, 12])
def test_the_linear_shift_is_that_of_a_plain_loop(vectors, n_orientations):
    angles = np.random.default_rng(1).uniform(-10, 10, len(vectors))
    expected = [loop_shift(vector, angle, n_orientations) for vector, angle in zip(vectors, angles, strict=True)]
    np.testing.assert_allclose(shifted(vectors, angles, n_orientations), expected, atol=1e-12)


def test_whole_steps_are_rolls_and_full_turns_nothing(vectors):
    by_orientation = vectors.reshape(-1, ORIENTATIONS, F)
    for k in range(ORIENTATIONS):
        found = shifted(vectors, np.full(len(vectors), 2 * np.pi * k / ORIENTATIONS), ORIENTATIONS)
        np.testing.assert_allclose(found.reshape(-1, ORIENTATIONS, F), np.roll(by_orientation, k, axis=1), atol=1e-12)
    np.testing.assert_allclose(shifted(vectors, np.full(len(vectors), -2 * np.pi), ORIENTATIONS), vectors, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 8.0])
def test_the_relaxed_shift_is_that_of_a_plain_loop(vectors, temperature):
    angles = np.random.default_rng(2).uniform(0, 2 * np.pi, len(vectors))
    weights = relaxed_weights(torch.tensor(angles), temperature, ORIENTATIONS)
    found = weighted_shifts(torch.tensor(vectors.reshape(-1, ORIENTATIONS, F)), weights).numpy()
    for vector, angle, row, result in zip(vectors, angles, weights.numpy(), found, strict=True):
        densities = [
            math.exp(temperature * math.cos(angle - 2 * math.pi * k / ORIENTATIONS)) for k in range(ORIENTATIONS)
        ]
        gamma = [density / sum(densities) for density in densities]
        np.testing.assert_allclose(row, gamma, rtol=1e-12)
        expected = sum(gamma[k] * np.roll(vector.reshape(ORIENTATIONS, F), k, axis=0) for k in range(ORIENTATIONS))
        np.testing.assert_allclose(result, expected, atol=1e-12)


def test_a_hot_relaxation_is_the_linear_shift_at_whole_steps(vectors):
    angles = torch.tensor([2 * math.pi * k / ORIENTATIONS for k in range(len(vectors))], dtype=torch.float64)
    found = weighted_shifts(
        torch.tensor(vectors.reshape(-1, ORIENTATIONS, F)), relaxed_weights(angles, 300.0, ORIENTATIONS)
    )
    np.testing.assert_allclose(found.flatten(1).numpy(), shifted(vectors, angles.numpy(), ORIENTATIONS), atol=1e-10)


@pytest.mark.parametrize("n_orientations", [1, 2, 3, 8])
def test_power_spectra_give_the_lengths_of_weighted_shifts(n_orientations):
    rng = np.random.default_rng(3)
    vectors = torch.tensor(rng.normal(size=(5, n_orientations, F)))
    weights = torch.tensor(rng.normal(size=(5, n_orientations)))
    spectra = power_spectra(vectors)
    torch.testing.assert_close(spectra.sum(dim=1), vectors.square().sum(dim=(1, 2)))
    gains = torch.fft.rfft(weights, dim=1).abs().square()
    expected = weighted_shifts(vectors, weights).square().sum(dim=(1, 2))
    torch.testing.assert_close((gains * spectra).sum(dim=1), expected)


def test_the_cyclic_mean_of_a_covariance_commutes_with_shifts():
    rng = np.random.default_rng(4)
    features = rng.normal(size=(50, ORIENTATIONS * F)) * rng.uniform(0.1, 3, ORIENTATIONS * F)
    sigma = np.cov(features, rowvar=False)
    expected = np.zeros_like(sigma)
    for k in range(ORIENTATIONS):
        roll = np.eye(ORIENTATIONS * F)[
            [((o - k) % ORIENTATIONS) * F + f for o in range(ORIENTATIONS) for f in range(F)]
        ]
        expected += roll @ sigma @ roll.T / ORIENTATIONS
    found = cyclic_mean(sigma, ORIENTATIONS)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    roll = np.eye(ORIENTATIONS * F)[[((o - 1) % ORIENTATIONS) * F + f for o in range(ORIENTATIONS) for f in range(F)]]
    np.testing.assert_allclose(roll @ found, found @ roll, atol=1e-12)
    root, w, angles = covariance_root(found), rng.normal(size=(4, ORIENTATIONS * F)), rng.uniform(0, 6, 4)
    np.testing.assert_allclose(
        shifted(w, angles, ORIENTATIONS) @ root, shifted(w @ root, angles, ORIENTATIONS), atol=1e-10
    )


@pytest.mark.parametrize(
    ("readouts", "n_orientations", "error", "message"),
    [
        (np.ones(8), 8, EmbeddingError, "readout vectors have the shape (8,); they must be (neurons, orientations"),
        (
            np.full((2, 8), np.nan),
            8,
            EmbeddingError,
            "the readout vectors hold NaN or infinite values; check",
        ),
        (
            np.ones((2, 12)),
            8,
            MisfitError,
            "n_orientations is 8, but readout vectors have 12 entries, which is not a multiple of it: each feature",
        ),
        (np.ones((2, 12)), 0, ValueError, "n_orientations is 0"),
    ],
)
def test_readouts_that_do_not_fit(readouts, n_orientations, error, message):
    with pytest.raises(error, match=re.escape(message)):
        checked_readouts(readouts, n_orientations)


@pytest.mark.parametrize("angles", [np.zeros(3), np.array([0.0, np.nan])])
def test_angles_that_do_not_fit(angles):
    with pytest.raises(EmbeddingError, match="there must be one finite angle for each of 2 neurons"):
        shifted(np.ones((2, 8)), angles, 8)
