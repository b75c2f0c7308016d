"""Post hoc clusterings, against scikit-learn and planted clusters."""

import re

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.sparse.csgraph import connected_components
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.datasets import make_swiss_roll
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors

from december_plugin.clustering import post_hoc
from december_plugin.clustering.kmeans import kmeans_start
from december_plugin.clustering.methods import POST_HOC
from december_plugin.clustering.post_hoc import cluster_readouts, in_order_of_size
from december_plugin.clustering.student_t_mixture import StudentTMixture
from december_plugin.errors import EmbeddingError, NoClustersError, SettingsError

every_method = pytest.mark.parametrize("method", list(POST_HOC))
GIVEN = [method for method in POST_HOC if POST_HOC[method].count != "found"]
ALWAYS_GIVEN = [method for method in POST_HOC if POST_HOC[method].count == "given"]
RANDOM = [method for method in GIVEN if "seed" in POST_HOC[method].defaults]


def with_n_clusters(method, n_clusters):
    """Return the number of clusters for a method that is given it."""
    return {"n_clusters": n_clusters} if method in GIVEN else {}


def planted(n=240, d=5, k=4, seed=0):
    """Return float32 vectors (n, d) around k distant centres, and the true clusters."""
    rng = np.random.default_rng(seed)
    types = rng.integers(0, k, n)
    centers = 3 * rng.normal(size=(k, d))
    return (centers[types] + 0.3 * rng.normal(size=(n, d))).astype(np.float32), types


@every_method
class TestEveryMethod:
    @pytest.mark.filterwarnings("error")
    def test_recovers_planted_clusters(self, method):
        vectors, types = planted()
        found = cluster_readouts(vectors, method=method, **with_n_clusters(method, 4))
        assert adjusted_rand_score(types, found.labels) == 1.0
        assert found.converged
        assert (found.labels.dtype, found.confidences.dtype) == (np.int64, np.float64)
        assert found.confidences.shape == (240,)
        assert (found.confidences > (0.9 if method != "hdbscan" else 0.1)).all()
        assert (found.confidences <= 1).all()
        assert (found.method, found.n_clusters, found.settings) == (method, 4, dict(POST_HOC[method].defaults))

    def test_takes_tensors_on_a_graph(self, method):
        vectors, _ = planted()
        from_array, from_tensor = (
            cluster_readouts(w, method=method, **with_n_clusters(method, 4))
            for w in (vectors, torch.tensor(vectors, requires_grad=True))
        )
        np.testing.assert_array_equal(from_tensor.labels, from_array.labels)

    def test_same_seed_same_bits(self, method):
        vectors = planted(n=120, d=3)[0]
        np.random.seed(0)
        first = cluster_readouts(vectors, method=method, **with_n_clusters(method, 3), seed=3)
        np.random.seed(1)
        again = cluster_readouts(vectors, method=method, **with_n_clusters(method, 3), seed=3)
        assert first.labels.tobytes() == again.labels.tobytes()
        assert first.confidences.tobytes() == again.confidences.tobytes()
        assert first.log_likelihood == again.log_likelihood
        assert first.settings.get("seed", 3) == 3

    def test_a_constant_feature(self, method):
        vectors, types = planted()
        vectors[:, 2] = 7.0
        found = cluster_readouts(vectors, method=method, **with_n_clusters(method, 4))
        assert adjusted_rand_score(types, found.labels) == 1.0

    def test_vectors_that_form_no_matrix(self, method):
        with pytest.raises(
            EmbeddingError, match=re.escape("must form a matrix (neurons, features), but have the shape")
        ):
            cluster_readouts(np.zeros((3, 2, 1)), method=method, **with_n_clusters(method, 2))


@pytest.mark.parametrize("method", ALWAYS_GIVEN)
class TestMethodsThatAreGivenK:
    def test_one_cluster(self, method):
        found = cluster_readouts(planted()[0], method=method, n_clusters=1)
        assert set(found.labels) == {0}
        np.testing.assert_allclose(found.confidences, 1.0)

    @pytest.mark.parametrize("far", [1e8, 1e12])
    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_one_neuron_far_from_all_others(self, method, far, dtype):
        w = np.random.default_rng(0).standard_normal((201, 8)) + np.repeat([0.0, 4.0, far], [100, 100, 1])[:, None]
        found = cluster_readouts(w.astype(dtype), method=method, n_clusters=3, seed=1)
        assert sorted(np.bincount(found.labels)) == [1, 100, 100]
        assert ((found.confidences >= 1 / 3) & (found.confidences <= 1)).all()
        assert ((found.margins >= 0) & (found.margins <= 1)).all()
        assert found.log_likelihood is None or np.isfinite(found.log_likelihood)

    @pytest.mark.parametrize(
        ("change", "settings", "error", "message"),
        [
            ({}, {"n_clusters": 0}, SettingsError, "n_clusters is 0, but must be an integer of at least 1."),
            ({}, {"n_clusters": 2.5}, SettingsError, "n_clusters is 2.5, but must be an integer of at least 1."),
            (
                {},
                {"n_clusters": 241},
                SettingsError,
                "n_clusters is 241, but there are only 240 neurons. Choose n_clusters between 1 and 240.",
            ),
            ({}, {"seed": -1}, SettingsError, "seed is -1, but must be an integer from 0 to 2**32 - 1."),
            ({}, {"n_int": 3}, SettingsError, "has no setting 'n_int'. "),
            (
                {(3, 1): np.nan, (9, 0): np.inf},
                {},
                EmbeddingError,
                "2 of 240 readout vectors hold NaN or infinite values, the first is row 3. Clustering needs finite",
            ),
        ],
        ids=["no clusters", "2.5 clusters", "too many", "seed", "unknown", "NaN"],
    )
    def test_errors(self, method, change, settings, error, message):
        vectors, _ = planted()
        for position, value in change.items():
            vectors[position] = value
        with pytest.raises(error, match=re.escape(message)):
            cluster_readouts(vectors, method=method, **{"n_clusters": 4, **settings})


@pytest.mark.parametrize("method", RANDOM)
def test_restarts_that_are_none(method):
    with pytest.raises(SettingsError, match=re.escape("n_init is 0, but must be an integer of at least 1.")):
        cluster_readouts(planted()[0], method=method, n_clusters=4, n_init=0)
    with pytest.raises(SettingsError, match=re.escape("has no setting 'n_int'. Did you mean 'n_init'? Allowed: ")):
        cluster_readouts(planted()[0], method=method, n_clusters=4, n_int=3)


def test_an_unknown_method():
    with pytest.raises(SettingsError, match=re.escape("method is 'kmean', which is unknown. Did you mean 'kmeans'? ")):
        cluster_readouts(np.zeros((3, 2)), method="kmean", n_clusters=2)


class TestGaussianMixture:
    def test_with_the_settings_of_the_paper_is_scikit_learns(self):
        vectors = np.random.default_rng(2).normal(size=(150, 4))
        found = cluster_readouts(vectors, method="gmm", n_clusters=6, seed=5, n_init=1, max_iter=100, tol=1e-3)
        expected = GaussianMixture(6, covariance_type="diag", reg_covar=1e-6, random_state=5).fit(vectors)
        np.testing.assert_array_equal(found.labels, expected.predict(vectors))
        np.testing.assert_allclose(found.confidences, expected.predict_proba(vectors).max(axis=1), rtol=1e-9)
        assert found.log_likelihood == pytest.approx(expected.score(vectors))

    @pytest.mark.filterwarnings("error")
    def test_says_when_it_has_not_converged(self):
        vectors = np.random.default_rng(2).normal(size=(150, 4))
        assert not cluster_readouts(vectors, method="gmm", n_clusters=6, max_iter=2, n_init=1).converged

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"reg_covar": -1}, "reg_covar is -1; it must be a number of at least 0."),
            ({"tol": "small"}, "tol is 'small'; it must be a number of at least 0."),
        ],
    )
    def test_values_that_are_not_allowed(self, settings, message):
        with pytest.raises(SettingsError, match=re.escape(message)):
            cluster_readouts(planted()[0], method="gmm", n_clusters=4, **settings)

    def test_spherical_covariances_are_scikit_learns(self):
        vectors = planted(seed=2)[0] * [1, 1, 1, 1, 3]
        found = cluster_readouts(vectors, method="gmm", n_clusters=4, covariance="spherical")
        settings = {"n_init": 5, "max_iter": 500, "tol": 1e-5, "random_state": 0}
        expected = GaussianMixture(4, covariance_type="spherical", **settings).fit(vectors.astype(np.float64))
        np.testing.assert_array_equal(found.labels, expected.predict(vectors.astype(np.float64)))
        assert found.log_likelihood == pytest.approx(expected.score(vectors.astype(np.float64)))
        assert found.settings["covariance"] == "spherical"

    def test_clusters_without_spread(self):
        vectors = np.repeat(np.eye(3), 4, axis=0)
        assert cluster_readouts(vectors, method="gmm", n_clusters=3).converged
        with pytest.raises(EmbeddingError, match=r"the Gaussian mixture cannot be fitted \(.*\). Raise reg_covar."):
            cluster_readouts(vectors, method="gmm", n_clusters=3, reg_covar=0)

    def test_one_neuron(self):
        with pytest.raises(SettingsError, match="gmm needs at least two neurons; there is 1"):
            cluster_readouts(np.ones((1, 2)), method="gmm", n_clusters=1)


class TestKMeans:
    def test_is_where_december_starts(self):
        vectors, _ = planted(k=8)
        found = cluster_readouts(vectors, method="kmeans", n_clusters=5, seed=4)
        centers, _ = kmeans_start(vectors, 5, seed=4)
        distances = ((vectors[:, None, :] - centers.numpy()[None]) ** 2).sum(axis=2)
        np.testing.assert_array_equal(found.labels, distances.argmin(axis=1))

    def test_is_scikit_learns(self):
        vectors, _ = planted(seed=3)
        expected = KMeans(4, n_init=20, random_state=0).fit_predict(vectors)
        found = cluster_readouts(vectors, method="kmeans", n_clusters=4)
        assert adjusted_rand_score(found.labels, expected) == 1.0
        assert found.log_likelihood is None
        assert (found.confidences == 1.0).all()

    def test_every_neuron_a_cluster(self):
        found = cluster_readouts(np.arange(6.0)[:, None], method="kmeans", n_clusters=6)
        assert sorted(found.labels) == list(range(6))


class TestStudentTMixture:
    def test_is_ours(self):
        vectors = np.random.default_rng(2).standard_t(3, size=(150, 4))
        settings = {"dof": 5.0, "weights": "learned", "scale_bounds": [1e-3, 1e3]}
        found = cluster_readouts(vectors, method="t_mixture", n_clusters=3, seed=6, n_init=2, **settings)
        w = torch.tensor(vectors)
        mixture = StudentTMixture(3, 4, **settings).fit(w, seed=6, n_init=2, max_iter=500, tol=1e-5)
        q = mixture.e_step(w)[0].numpy()
        np.testing.assert_array_equal(found.labels, q.argmax(axis=1))
        np.testing.assert_allclose(found.confidences, q.max(axis=1), rtol=1e-9)
        assert found.log_likelihood == pytest.approx(mixture.score(w))

    @pytest.mark.filterwarnings("error")
    def test_says_when_it_has_not_converged(self):
        vectors = np.random.default_rng(2).normal(size=(150, 4))
        assert not cluster_readouts(vectors, method="t_mixture", n_clusters=6, max_iter=2, n_init=1).converged

    @pytest.mark.parametrize("method", ["kmeans", "t_mixture"])
    def test_too_many_equal_vectors(self, method):
        with pytest.raises(EmbeddingError, match="k-means finds only 2 different clusters among 10 readout vectors"):
            cluster_readouts(np.repeat(np.eye(2), 5, axis=0), method=method, n_clusters=3)


class TestWard:
    def test_is_scipys_tree_cut_into_k(self):
        vectors = np.random.default_rng(2).normal(size=(150, 4))
        found = cluster_readouts(vectors, method="ward", n_clusters=6)
        expected = fcluster(linkage(vectors, "ward"), 6, criterion="maxclust")
        assert adjusted_rand_score(expected, found.labels) == 1.0
        assert (np.diff(np.bincount(found.labels)) <= 0).all()  # numbered from the largest

    def test_fewer_clusters_are_unions_of_more(self):
        vectors = np.random.default_rng(3).normal(size=(200, 5))
        for settings in ({}, {"n_neighbors": 8}):
            few, many = (cluster_readouts(vectors, method="ward", n_clusters=k, **settings).labels for k in (3, 9))
            assert all(len(set(few[many == cluster])) == 1 for cluster in range(9))

    def test_merges_only_neighbours_where_asked(self):
        # A rolled sheet: by variance alone clusters reach across its layers, along neighbours they do not.
        vectors, _ = make_swiss_roll(600, random_state=0)
        vectors[:, 1] *= 0.2
        neighbors = NearestNeighbors(n_neighbors=6).fit(vectors).kneighbors_graph()
        parts = []
        for settings in ({}, {"n_neighbors": 6}):
            labels = cluster_readouts(vectors, method="ward", n_clusters=6, **settings).labels
            parts.append(max(connected_components(neighbors[labels == k][:, labels == k])[0] for k in range(6)))
        assert parts[0] > 1
        assert parts[1] == 1

    def test_says_how_much_memory_it_would_take(self):
        with pytest.raises(
            SettingsError,
            match=re.escape(
                "ward compares all pairs of 50,000 neurons, for which it needs 20 GB of memory; 8 GB are allowed. Set "
                "n_neighbors, e.g. to 20: then"
            ),
        ):
            cluster_readouts(np.zeros((50_000, 1)), method="ward", n_clusters=2)

    def test_more_neighbours_than_neurons(self):
        with pytest.raises(SettingsError, match=re.escape("n_neighbors is 9, but there are only 9 neurons.")):
            cluster_readouts(np.eye(9), method="ward", n_clusters=2, n_neighbors=9)


class TestHdbscan:
    @pytest.mark.parametrize("few", [post_hoc.HDBSCAN_NEURONS, 299])
    def test_is_scikit_learns(self, few, monkeypatch):
        monkeypatch.setattr(post_hoc, "HDBSCAN_NEURONS", few)
        vectors, _ = planted(n=300, d=3)
        vectors[::10] += np.random.default_rng(0).normal(size=(30, 3)) * 4
        found = cluster_readouts(vectors, method="hdbscan", min_cluster_size=10, min_samples=5)
        expected = HDBSCAN(min_cluster_size=10, min_samples=5, copy=True).fit(vectors.astype(np.float64))
        np.testing.assert_array_equal(found.labels == -1, expected.labels_ == -1)
        assert 0 < (found.labels == -1).sum() < 150
        assert adjusted_rand_score(expected.labels_, found.labels) == 1.0
        np.testing.assert_allclose(found.confidences, expected.probabilities_)
        assert (found.confidences[found.labels == -1] == 0).all()
        assert found.n_clusters == expected.labels_.max() + 1

    def test_finds_none_in_one_cloud(self):
        vectors = np.random.default_rng(0).normal(size=(300, 8))
        with pytest.raises(NoClustersError, match="finds no cluster of at least 25 among 300 neurons"):
            cluster_readouts(vectors, method="hdbscan")

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"n_clusters": 4}, "n_clusters is 4; leave it out for the method 'hdbscan', which finds their number."),
            ({"min_cluster_size": 1}, "min_cluster_size is 1, but must be an integer of at least 2."),
            (
                {"min_cluster_size": 300},
                "min_cluster_size is 300, but there are only 240 neurons. Choose a smaller",
            ),
            ({"min_samples": 300}, "min_samples is 300, but there are only 240 neurons. Choose a smaller one."),
            ({"cluster_selection_method": "oem"}, "cluster_selection_method is 'oem', which is unknown. Did you mean"),
        ],
    )
    def test_errors(self, settings, message):
        with pytest.raises(SettingsError, match=re.escape(message)):
            cluster_readouts(planted()[0], method="hdbscan", **settings)


def test_clusters_in_order_of_size():
    assert in_order_of_size([5, -1, 2, 2, 5, 7, -1, 2]).tolist() == [1, -1, 0, 0, 1, 2, -1, 0]
