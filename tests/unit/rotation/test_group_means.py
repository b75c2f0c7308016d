"""Neurons that are aligned to the means of groups: what is nearest, in plain loops, and what is gained."""

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score

from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.rotation import RotationAlignment, shifted
from december_plugin.rotation.group_means import aligned_to_groups
from december_plugin.rotation.settling import nearest_targets
from december_plugin.rotation.simulation import simulated_readouts, toy_readouts

ORIENTATIONS = 8


def unit_vectors(n, *, n_types=3, n_features=2, noise=0.5, seed=0):
    planted = simulated_readouts(
        n, n_types=n_types, n_features=n_features, features="dense", noise=noise, seed=seed
    ).readouts
    return (planted / np.linalg.norm(planted, axis=1, keepdims=True)).reshape(n, ORIENTATIONS, n_features)


def test_no_mean_at_no_angle_is_nearer():
    vectors = unit_vectors(60)
    found = aligned_to_groups(vectors, np.zeros(60), n_means=4, seed=0)
    assert 2 <= len(found.means) <= 4
    flat, targets = vectors.reshape(60, -1), found.means.reshape(len(found.means), -1)
    reached = np.linalg.norm(shifted(flat, found.angles, ORIENTATIONS) - targets[found.groups], axis=1)
    for angle in np.linspace(0, 2 * np.pi, 100):
        moved = shifted(flat, np.full(60, angle), ORIENTATIONS)
        for target in targets:
            assert (reached <= np.linalg.norm(moved - target, axis=1) + 1e-9).all()


@pytest.mark.parametrize(("n", "n_means"), [(19, 20), (60, 1)])
def test_one_group_leaves_the_angles(n, n_means):
    start = np.random.default_rng(0).uniform(0, 6, n)
    vectors = unit_vectors(n)
    found = aligned_to_groups(vectors, start, n_means=n_means, seed=0)
    np.testing.assert_array_equal(found.angles, start)
    mean = shifted(vectors.reshape(n, -1), start, ORIENTATIONS).mean(axis=0)
    np.testing.assert_allclose(found.means.reshape(1, -1), mean[None])


def test_fewer_vectors_than_groups_have_one_mean():
    two = unit_vectors(2, noise=0)
    vectors = two[np.arange(60) % 2]
    found = aligned_to_groups(vectors, np.zeros(60), n_means=5, seed=0)
    np.testing.assert_array_equal(found.angles, 0)
    np.testing.assert_allclose(found.means, vectors.mean(axis=0)[None])


def test_means_that_no_neuron_is_nearest_to_are_left_out():
    readouts = toy_readouts(100, noise=0.1, seed=4).readouts  # of which one is left over by the last pass
    found = RotationAlignment(ORIENTATIONS, random_state=4).fit(readouts)
    directions = readouts / np.linalg.norm(readouts, axis=1, keepdims=True)
    nearest, _ = nearest_targets(directions[:, :, None], found.means_[:, :, None])
    np.testing.assert_array_equal(np.unique(nearest), np.arange(len(found.means_)))


@pytest.mark.slow(2)
def test_types_are_recovered_where_one_mean_is_too_few():
    planted = simulated_readouts(1200, n_types=6, noise=2.0, seed=6)
    scores = {}
    for n_means in (1, 20):
        alignment = RotationAlignment(ORIENTATIONS, n_means=n_means, n_restarts=1, random_state=0)
        aligned = alignment.fit_transform(planted.readouts)
        found = cluster_readouts(aligned, method="gmm", n_clusters=6, covariance="spherical", n_init=2)
        scores[n_means] = adjusted_rand_score(planted.types, found.labels)
    assert scores[20] > 0.95
    assert scores[1] < 0.85
