"""The feature covariance that goes with readout vectors and fingerprints."""

import numpy as np
import pytest

from december_plugin.errors import EmbeddingError
from december_plugin.imports.fingerprints import covariance_of_fingerprints

RNG = np.random.default_rng(0)
FEATURES = RNG.normal(size=(200, 5)) @ RNG.normal(size=(5, 5)) + 3  # probes x channels, correlated, not centred
SIGMA = np.cov(FEATURES.T, ddof=0)


def test_the_covariance_of_the_features_is_found() -> None:
    w = RNG.normal(size=(12, 5))
    np.testing.assert_allclose(covariance_of_fingerprints(w, w @ FEATURES.T), SIGMA, rtol=1e-9)


def test_float32_and_a_dead_channel() -> None:
    w = RNG.normal(size=(12, 5)).astype(np.float32)
    dead = np.where(np.arange(5) == 3, 0, FEATURES)
    found = covariance_of_fingerprints(w, (w @ dead.T).astype(np.float32))
    np.testing.assert_allclose(found, np.cov(dead.T, ddof=0), atol=1e-4)


def test_of_few_neurons_their_geometry_is_found() -> None:
    w = RNG.normal(size=(3, 5))
    drives = w @ FEATURES.T
    found = covariance_of_fingerprints(w, drives)
    np.testing.assert_allclose(w @ found @ w.T, np.cov(drives, ddof=0), rtol=1e-9)


def test_fingerprints_of_something_else() -> None:
    w = RNG.normal(size=(12, 5))
    drives = w @ FEATURES.T
    with pytest.raises(
        EmbeddingError, match=r"the fingerprints are of 11 neurons and the readout vectors of 12, so they"
    ):
        covariance_of_fingerprints(w, drives[1:])
    with pytest.raises(
        EmbeddingError, match=r"F.npy are not drives of these readout vectors: a part of .* of every neuron"
    ):
        covariance_of_fingerprints(w, drives[::-1], name="F.npy")
    with pytest.raises(EmbeddingError, match=r"are not drives of these readout vectors"):
        covariance_of_fingerprints(w, np.maximum(drives, 0))
    with pytest.raises(EmbeddingError, match=r"are constant over the probes, so they say nothing about the features"):
        covariance_of_fingerprints(w, np.ones((12, 7)))
