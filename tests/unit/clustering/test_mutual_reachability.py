"""The spanning tree of mutual reachability distances, against the matrix of all pairs and scikit-learn's HDBSCAN."""

import numpy as np
import pytest
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components, minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import HDBSCAN

from december_plugin.clustering import mutual_reachability
from december_plugin.clustering.mutual_reachability import reachability_tree

SMALLEST = 5e-324


def blobs(n, d, k, *, seed=0, spread=0.5):
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(k, d))
    return centers[rng.integers(0, k, n)] + spread * rng.normal(size=(n, d))


def skewed(n, d, seed):
    """Clusters of neurons of different strength, which overlap."""
    rng = np.random.default_rng(seed)
    centers = 4 * rng.normal(size=(5, d))
    return centers[rng.integers(0, 5, n)] + rng.exponential(size=(n, 1)) * rng.normal(size=(n, d))


def with_far_ones():
    vectors = blobs(250, 8, 4)
    vectors[3], vectors[4], vectors[9] = 1e10, 1e10 + 1, -1e100
    return vectors


VECTORS = {
    "blobs": blobs(300, 16, 6),
    "far apart": blobs(250, 4, 5, spread=0.01),
    "one cloud": np.random.default_rng(0).normal(size=(250, 6)),
    "a line": np.random.default_rng(1).normal(size=(200, 1)) ** 3,
    "overlapping": skewed(300, 2, 2),
    "overlapping, more features": skewed(300, 5, 3),
    "far from 0": 1e6 + blobs(250, 8, 4, spread=0.2),
    "far ones": with_far_ones(),
    "small": 1e-200 * blobs(200, 8, 4),
    "large": 1e100 * blobs(200, 8, 4),
    "many equal": np.concatenate([np.zeros((100, 4)), skewed(150, 4, 5)]),
}


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(mutual_reachability, "ROWS", 64)
    monkeypatch.setattr(mutual_reachability, "COLUMNS", 100)
    monkeypatch.setattr(mutual_reachability, "BLOCK_NUMBERS", 1000)


def reachability(vectors, n_samples):
    """Return the matrix of all mutual reachability distances, with no 0 but on the diagonal."""
    distances = squareform(pdist(vectors))
    core = np.sort(distances, axis=1)[:, n_samples - 1]
    reach = np.maximum(np.maximum(distances, core), core[:, None])
    return np.maximum(reach, SMALLEST * (1 - np.eye(len(vectors)))) * (1 - np.eye(len(vectors)))


def assert_minimal(tree, vectors, n_samples):
    n = len(vectors)
    reach = reachability(vectors, n_samples)
    assert tree.shape == (n, n)
    assert (tree != tree.T).nnz == 0
    assert connected_components(tree, directed=False)[0] == 1
    first, second = np.triu(tree.toarray()).nonzero()
    assert len(first) == n - 1
    lengths = tree.toarray()[first, second]
    assert len(set(lengths)) == n - 1  # nothing is left to the order in which equal ones are sorted
    np.testing.assert_allclose(lengths, reach[first, second], rtol=1e-11, atol=1e-300)
    expected = minimum_spanning_tree(csr_array(reach)).data
    np.testing.assert_allclose(np.sort(lengths), np.sort(expected), rtol=1e-11, atol=1e-300)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("n_samples", [1, 5, 25])
@pytest.mark.parametrize("kind", VECTORS)
def test_no_pair_improves_the_tree_and_clusters_are_scikit_learns(kind, n_samples):
    vectors = VECTORS[kind]
    tree = reachability_tree(vectors, n_samples)
    assert_minimal(tree, vectors, n_samples)
    for settings in ({"min_cluster_size": 5}, {"min_cluster_size": 25, "cluster_selection_method": "leaf"}):
        expected = HDBSCAN(min_samples=n_samples, **settings, copy=True).fit(vectors)
        found = HDBSCAN(min_samples=1, metric="precomputed", **settings, copy=True).fit(tree)
        clusters = {tuple(pair) for pair in zip(expected.labels_, found.labels_, strict=True)}
        assert len(clusters) == len(set(expected.labels_)) == len(set(found.labels_))
        np.testing.assert_array_equal(found.labels_ == -1, expected.labels_ == -1)
        np.testing.assert_allclose(found.probabilities_, expected.probabilities_, rtol=1e-9)


def test_a_proof_finds_what_neighbors_miss(monkeypatch, small_blocks):
    # With one neighbor each, the vectors are in many parts, joined by the first that comes.
    monkeypatch.setattr(mutual_reachability, "FEWEST_NEIGHBORS", 1)
    monkeypatch.setattr(mutual_reachability, "MOST_NEIGHBORS", 1)
    monkeypatch.setattr(mutual_reachability, "SAMPLE", 1)
    vectors = blobs(300, 8, 4)
    assert_minimal(reachability_tree(vectors, 10), vectors, 10)


def test_more_equally_long_edges_than_memory_holds(monkeypatch, small_blocks):
    monkeypatch.setattr(mutual_reachability, "MOST_EDGES", 500)
    vectors = np.random.default_rng(0).integers(0, 6, size=(400, 3)).astype(np.float64)
    assert_minimal(reachability_tree(vectors, 10), vectors, 10)


@pytest.mark.parametrize("n", [2, 3, 30])
def test_few_or_equal_vectors(n):
    tree = reachability_tree(np.ones((n, 4)), 2)
    assert connected_components(tree, directed=False)[0] == 1
    assert tree.nnz == 2 * (n - 1)
    assert tree.max() < 1e-300
