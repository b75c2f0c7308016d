"""Merging of mixture components along paths of high density: against closed forms, SciPy, and shapes with two parts."""

import itertools
import re

import numpy as np
import pytest
import torch
from scipy.ndimage import label
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.stats import multivariate_t
from sklearn.datasets import make_moons
from sklearn.metrics import adjusted_rand_score

from december_plugin.clustering.density_paths import MergeTree, MixtureDensity, merge_tree, passes
from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.clustering.student_t_mixture import StudentTMixture
from december_plugin.errors import SettingsError


def mixture(centers, scales=1.0, weights=None, dof=3.0):
    """Return a t mixture with these parameters."""
    centers = np.asarray(centers, dtype=float)
    made = StudentTMixture(*centers.shape, dof=dof, weights="learned")
    made.centers.copy_(torch.as_tensor(centers))
    made.scales.copy_(torch.as_tensor(np.broadcast_to(scales, centers.shape).copy()))
    if weights is not None:
        made.mixing_weights.copy_(torch.as_tensor(np.asarray(weights, dtype=float)))
    return made


def log_density(made, x):
    """Return the log density (nat) at one point, by SciPy."""
    parts = [
        weight * multivariate_t(center, np.diag(scale), df=made.dof).pdf(x)
        for center, scale, weight in zip(made.centers.numpy(), made.scales.numpy(), made.mixing_weights, strict=True)
    ]
    return float(np.log(sum(float(part) for part in parts)))


RNG = np.random.default_rng(0)
UNEQUAL = mixture(
    5 * RNG.normal(size=(4, 3)), 10 ** RNG.uniform(-1, 1, size=(4, 3)), weights=[0.1, 0.2, 0.3, 0.4], dof=2.1
)


class TestDensity:
    def test_is_scipys(self):
        density, points = MixtureDensity(UNEQUAL), RNG.normal(size=(6, 3)) * 4
        expected = [log_density(UNEQUAL, point) for point in points]
        np.testing.assert_allclose(density.log_density((points - density.origin) / density.unit), expected, rtol=1e-10)

    def test_climbing_never_goes_down_and_ends_where_the_gradient_is_zero(self):
        density = MixtureDensity(UNEQUAL)
        x, before = RNG.normal(size=(20, 3)) * 3, np.full(20, -np.inf)
        for _ in range(3000):
            now, x = density.climb(x)
            assert (now >= before - 1e-12).all()
            before = now
        for point in x[:4] * density.unit + density.origin:
            steps = 1e-5 * np.eye(3)
            slope = [(log_density(UNEQUAL, point + s) - log_density(UNEQUAL, point - s)) / 2e-5 for s in steps]
            np.testing.assert_allclose(slope, 0, atol=1e-5)


class TestPasses:
    def test_between_two_equal_components_it_is_the_middle(self):
        made = mixture([[-3.0, 1.0], [3.0, 1.0]])
        found = passes(MixtureDensity(made))
        assert found[0, 1] == found[1, 0] == pytest.approx(log_density(made, [0.0, 1.0]), abs=1e-9)
        assert found[0, 0] == pytest.approx(log_density(made, [-3.0, 1.0]), abs=1e-9)

    def test_a_path_bends_to_the_highest_pass(self):
        # Between the two ends a third component lies aside: the way over it is higher than the straight one.
        made = mixture([[-4.0, 0.0], [4.0, 0.0], [0.0, 2.5]], scales=[[1, 1], [1, 1], [4, 1]])
        x, y = np.meshgrid(np.linspace(-5, 5, 401), np.linspace(-2, 4, 241), indexing="ij")
        with torch.no_grad():
            surface = made.score_samples(torch.as_tensor(np.stack([x.ravel(), y.ravel()], axis=1)))
        surface = surface.numpy().reshape(x.shape)
        # Flooded up to a level, the highest at which both ends are on one piece of land.
        low, high = surface.min(), surface[40, 80]
        for _ in range(40):
            level = (low + high) / 2
            pieces = label(surface >= level)[0]
            low, high = (level, high) if pieces[40, 80] == pieces[360, 80] > 0 else (low, level)
        found = passes(MixtureDensity(made))[0, 1]
        assert found == pytest.approx(low, abs=0.01)
        assert found > surface[40:361, 80].min() + 0.3

    def test_do_not_depend_on_units_and_place(self):
        unit, shift = np.array([1e-3, 1.0, 50.0]), np.array([7.0, -100.0, 3.0])
        moved = mixture(
            UNEQUAL.centers.numpy() * unit + shift,
            UNEQUAL.scales.numpy() * unit**2,
            weights=UNEQUAL.mixing_weights.numpy(),
            dof=UNEQUAL.dof,
        )
        difference = passes(MixtureDensity(moved)) - passes(MixtureDensity(UNEQUAL))
        np.testing.assert_allclose(difference, -np.log(unit).sum(), atol=1e-7)


class TestTree:
    def test_is_scipys_spanning_tree_of_the_highest_passes(self):
        heights = RNG.normal(size=(12, 12))
        heights = np.triu(heights, 1) + np.triu(heights, 1).T + np.diag(np.full(12, 5.0))
        tree = merge_tree(heights)
        expected = minimum_spanning_tree(np.triu(10 - heights, 1))
        np.testing.assert_allclose(np.sort(tree.heights), np.sort(10 - expected.data))
        assert (np.diff(tree.heights) <= 0).all()
        np.testing.assert_allclose(tree.depths, 5 - tree.heights)

    def test_clusters_that_passes_keep_apart(self):
        # 0 - 1 and 2 - 3 are near, 4 is alone, and lower than the others.
        heights = np.full((5, 5), -9.0)
        np.fill_diagonal(heights, [3.0, 2.0, 1.0, 0.0, -5.0])
        for a, b, height in ((0, 1, 1.5), (2, 3, -1.0), (1, 2, -4.0), (3, 4, -6.0)):
            heights[a, b] = heights[b, a] = height
        tree = merge_tree(heights)
        assert tree.depths.tolist() == [0.5, 1.0, 5.0, 1.0]
        assert tree.into(3).tolist() == [0, 0, 1, 2, 2]
        assert tree.into(2).tolist() == [0, 0, 1, 1, 1]
        assert tree.into(1).tolist() == [0] * 5
        assert tree.into(5).tolist() == list(range(5))
        assert tree.apart(2.0).tolist() == [0, 0, 1, 1, 1]
        assert tree.apart(0.0).tolist() == list(range(5))
        assert tree.apart(99.0).tolist() == [0] * 5
        shares = np.array([0.3, 0.3, 0.02, 0.3, 0.08])
        assert tree.into(3, shares, min_share=0.05).tolist() == [0, 0, 1, 1, 2]
        assert tree.into(4, shares, min_share=0.05).tolist() == [0, 1, 2, 2, 3]
        assert tree.into(5, shares, min_share=0.05).tolist() == list(range(5))  # there are no others


class TestClustering:
    def test_follows_moons_that_no_mixture_of_two_does(self):
        vectors, truth = make_moons(1000, noise=0.07, random_state=0)
        for settings in ({"n_clusters": 2}, {"min_depth": 2.5}):
            found = cluster_readouts(vectors, method="t_neb", n_components=15, **settings)
            assert found.n_clusters == 2
            assert adjusted_rand_score(truth, found.labels) == 1.0
        plain = cluster_readouts(vectors, method="t_mixture", n_clusters=2).labels
        assert adjusted_rand_score(truth, plain) < 0.8

    def test_stretched_clusters(self):
        rng = np.random.default_rng(1)
        truth = rng.integers(0, 3, 600)
        vectors = rng.normal(size=(600, 2)) * [4.0, 0.4] + np.array([[0, 0], [3, 4], [0, 8]])[truth]
        vectors = vectors @ [[1, 1], [-1, 1]]  # no axis of the features is theirs
        assert adjusted_rand_score(truth, cluster_readouts(vectors, method="t_neb", n_clusters=3).labels) > 0.8

    def test_fewer_clusters_are_unions_of_more(self):
        vectors = np.random.default_rng(3).normal(size=(300, 4))
        few, many = (cluster_readouts(vectors, method="t_neb", n_clusters=k).labels for k in (3, 8))
        assert np.mean([np.bincount(few[many == k]).max() / (many == k).sum() for k in range(8)]) > 0.9

    def test_as_many_clusters_as_components_are_the_mixture(self):
        vectors = np.random.default_rng(3).normal(size=(200, 4))
        found = cluster_readouts(vectors, method="t_neb", n_clusters=6, n_components=6)
        plain = cluster_readouts(vectors, method="t_mixture", n_clusters=6, n_init=1, weights="learned")
        assert adjusted_rand_score(plain.labels, found.labels) == 1.0
        np.testing.assert_allclose(found.confidences, plain.confidences)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({}, "the method 't_neb' needs one of n_clusters, an integer of at least 1, and min_depth, by which"),
            ({"n_clusters": 3, "min_depth": 2}, "the method 't_neb' is given both; it takes one of n_clusters"),
            ({"n_clusters": 21}, "n_clusters is 21, but t_neb merges 20 components into clusters. Choose fewer"),
            ({"n_clusters": 3, "n_components": 61}, "n_components is 61, but there are only 60 neurons. Choose fewer."),
            ({"min_depth": -1}, "min_depth is -1, but must be a number of nats, 0 or more."),
        ],
    )
    def test_errors(self, settings, message):
        vectors = np.random.default_rng(3).normal(size=(60, 4))
        with pytest.raises(SettingsError, match=re.escape(message)):
            cluster_readouts(vectors, method="t_neb", **settings)


def test_clusters_for_fewer_are_unions_of_those_for_more_also_where_small_ones_have_to_do():
    merged = np.array([[0, 1], [1, 2], [2, 3], [2, 4]])
    tree = MergeTree(merged, heights=np.array([4.0, 3.0, 2.0, 1.0]), depths=np.array([1.0, 2.0, 9.0, 8.0]))
    shares = np.array([0.4, 0.29, 0.295, 0.005, 0.01])  # the deepest passes surround handfuls of neurons
    found = [tree.into(count, shares, min_share=0.02) for count in (1, 2, 3, 4, 5)]
    assert found[2].tolist() == [0, 1, 2, 2, 2]
    assert found[3].tolist() == [0, 1, 2, 3, 2]
    for fewer, more in itertools.pairwise(found):
        assert len(set(zip(fewer, more, strict=True))) == len(set(more)) == len(set(fewer)) + 1
