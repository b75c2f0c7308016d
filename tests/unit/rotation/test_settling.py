"""The best of all angles, against a fine grid of them."""

import numpy as np
import pytest

from december_plugin.rotation.settling import best_angles, settled_angles
from december_plugin.rotation.shifts import shifted


@pytest.mark.parametrize("n_orientations", [2, 3, 4, 8])
def test_no_angle_of_a_fine_grid_is_better(n_orientations):
    rng = np.random.default_rng(n_orientations)
    vectors, target = rng.normal(size=(20, n_orientations, 3)), rng.normal(size=(n_orientations, 3))
    flat = vectors.reshape(20, -1)

    def squared(angles):
        return ((shifted(flat, angles, n_orientations) - target.ravel()) ** 2).sum(axis=1)

    grid = np.linspace(0, 2 * np.pi, 721)
    curves = np.stack([squared(np.full(20, angle)) for angle in grid], axis=1)
    found = best_angles(vectors, target)
    assert ((found.angles >= 0) & (found.angles < 2 * np.pi)).all()
    assert (squared(found.angles) <= curves.min(axis=1) + 1e-12).all()
    apart = np.abs(grid - found.angles[:, None])
    is_far = np.minimum(apart, 2 * np.pi - apart) > np.pi / 4
    gaps = np.where(is_far, curves, np.inf).min(axis=1) - curves.min(axis=1)
    shares = gaps / (curves.max(axis=1) - curves.min(axis=1))
    is_clear = np.abs(shares - 0.1) > 0.01  # a grid misses the very minimum
    np.testing.assert_array_equal(found.ambiguous[is_clear], (shares < 0.1)[is_clear])


def test_a_cosine_has_an_angle_and_what_repeats_itself_has_none():
    at = 2 * np.pi / 8 * np.arange(8)[:, None]
    vectors = np.stack([np.cos(at - 1.0), np.cos(2 * at), np.ones_like(at)])
    found = best_angles(vectors, np.cos(at))
    assert found.angles[0] == pytest.approx(2 * np.pi - 1.0, abs=0.05)
    assert found.ambiguous[[0, 2]].tolist() == [False, True]
    assert best_angles(vectors[1:2], np.cos(2 * at)).ambiguous.all()


def test_settled_angles_bring_vectors_nearer_together():
    rng = np.random.default_rng(5)
    vectors, start = rng.normal(size=(40, 8, 2)), rng.uniform(0, 2 * np.pi, 40)
    settled = settled_angles(vectors, start)
    flat = vectors.reshape(40, -1)

    def spread(angles):
        return shifted(flat, angles, 8).var(axis=0).sum()

    assert spread(settled) < 0.9 * spread(start)
    mean = shifted(flat, settled, 8).mean(axis=0).reshape(8, 2)
    np.testing.assert_allclose(best_angles(vectors, mean).angles, settled, atol=1e-5)
