"""Fourier amplitudes along the orientations."""

import numpy as np
import pytest

from december_plugin.rotation import fourier_amplitudes, shifted


@pytest.mark.parametrize("n_orientations", [1, 2, 3, 8])
def test_amplitudes_are_those_of_plain_sums_and_blind_to_shifts(n_orientations):
    rng = np.random.default_rng(0)
    readouts = rng.normal(size=(5, n_orientations * 2))
    found = fourier_amplitudes(readouts, n_orientations)
    assert found.shape == (5, (n_orientations // 2 + 1) * 2)
    by_orientation = readouts.reshape(5, n_orientations, 2)
    for frequency in range(n_orientations // 2 + 1):
        waves = np.exp(-2j * np.pi * frequency * np.arange(n_orientations) / n_orientations)
        twice = 1 if 2 * frequency % n_orientations == 0 else 2
        for feature in range(2):
            expected = abs(by_orientation[:, :, feature] @ waves) * np.sqrt(twice / n_orientations)
            np.testing.assert_allclose(found[:, 2 * frequency + feature], expected, atol=1e-12)
    turned = shifted(readouts, rng.integers(n_orientations, size=5) * 2 * np.pi / n_orientations, n_orientations)
    np.testing.assert_allclose(fourier_amplitudes(turned, n_orientations), found, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), np.linalg.norm(readouts, axis=1))
