"""Permutations that destroy types and keep how features are tuned."""

import numpy as np
import pytest

from december_plugin.errors import SettingsError
from december_plugin.rotation.controls import permuted_readouts

ORIENTATIONS, F, N = 4, 3, 6


@pytest.fixture
def readouts():
    """Return vectors of which no two entries are equal."""
    return np.random.default_rng(0).permutation(N * ORIENTATIONS * F).reshape(N, ORIENTATIONS * F).astype(float)


def curves(vectors):
    """Return the tuning curve of every neuron's every feature, as tuples."""
    return [[tuple(neuron[:, f]) for f in range(F)] for neuron in vectors.reshape(N, ORIENTATIONS, F)]


def test_features_are_permuted_within_each_neuron(readouts):
    found = curves(permuted_readouts(readouts, ORIENTATIONS, control="features", seed=1))
    permutations = set()
    for before, after in zip(curves(readouts), found, strict=True):
        assert sorted(before) == sorted(after)
        permutations.add(tuple(before.index(curve) for curve in after))
    assert len(permutations) > 1  # one of their own each


def test_each_feature_is_permuted_across_neurons(readouts):
    before, after = curves(readouts), curves(permuted_readouts(readouts, ORIENTATIONS, control="neurons", seed=1))
    permutations = set()
    for f in range(F):
        old, new = ([neuron[f] for neuron in vectors] for vectors in (before, after))
        assert sorted(old) == sorted(new)
        permutations.add(tuple(old.index(curve) for curve in new))
    assert len(permutations) == F


def test_seeds_and_names(readouts):
    first, again, other = (
        permuted_readouts(readouts, ORIENTATIONS, control="neurons", seed=seed) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    with pytest.raises(SettingsError, match="control is 'feature'"):
        permuted_readouts(readouts, ORIENTATIONS, control="feature")
