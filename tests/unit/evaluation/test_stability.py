"""Stability of clusters within one model, against plain loops, planted clusters and clouds."""

import re

import numpy as np
import pytest
from sklearn.cluster import KMeans

from december_plugin.errors import NoClustersError, SettingsError
from december_plugin.evaluation.stability import cluster_stability, stability_null


def kmeans(k):
    return lambda vectors: KMeans(k, n_init=3, random_state=0).fit_predict(vectors)


def jaccard(a, b):
    return len(a & b) / len(a | b)


def test_similarities_are_those_of_plain_loops():
    rng = np.random.default_rng(0)
    vectors, labels = rng.normal(size=(60, 2)), rng.integers(-1, 3, 60)
    parts, made = [], []

    def cluster(part):
        parts.append([int(np.flatnonzero((vectors == row).all(axis=1))[0]) for row in part])
        made.append(rng.integers(-1, 4, len(part)))
        return made[-1]

    found = cluster_stability(vectors, labels, cluster, n_draws=3, share=0.4)
    assert found.clusters.tolist() == [0, 1, 2]
    assert [len(set(part)) for part in parts] == [24] * 3
    for draw, (part, again) in enumerate(zip(parts, made, strict=True)):
        for at, name in enumerate(found.clusters):
            own = {i for i in part if labels[i] == name}
            others = [{i for i, label in zip(part, again, strict=True) if label == k} for k in range(4)]
            assert found.similarities[draw, at] == pytest.approx(max(jaccard(own, other) for other in others))
    np.testing.assert_allclose(found.mean, found.similarities.mean(axis=0))
    assert found.overall == pytest.approx(np.average(found.mean, weights=found.sizes))


def test_planted_clusters_are_stable_and_too_many_are_not():
    rng = np.random.default_rng(1)
    types = rng.integers(0, 3, 300)
    vectors = 6 * np.eye(3, 5)[types] + rng.normal(size=(300, 5))
    right, too_many = (cluster_stability(vectors, kmeans(k)(vectors), kmeans(k), n_draws=8) for k in (3, 9))
    assert right.mean.min() > 0.95
    assert right.agreements.mean() > 0.95
    assert too_many.overall < 0.7
    again = cluster_stability(vectors, kmeans(9)(vectors), kmeans(9), n_draws=8)
    assert again.similarities.tobytes() == too_many.similarities.tobytes()


def test_the_null_knows_types_from_a_cloud():
    rng = np.random.default_rng(2)
    cloud = rng.normal(size=(200, 4)) * [3, 2, 1, 1]
    typed = 5 * np.eye(4)[rng.integers(0, 4, 200)] + rng.normal(size=(200, 4))
    p_values = []
    for vectors in (typed, cloud):
        observed = cluster_stability(vectors, kmeans(4)(vectors), kmeans(4), n_draws=5).overall
        p_values.append(stability_null(vectors, kmeans(4), observed, n_surrogates=9, n_draws=5).p_value)
    assert p_values[0] == 0.1
    assert p_values[1] > 0.1


def test_a_part_without_clusters_finds_nothing_again():
    def none(part):
        raise NoClustersError("none")

    found = cluster_stability(np.eye(8), np.repeat([0, 1], 4), none, n_draws=2)
    assert (found.similarities == 0).all()
    assert (found.agreements == 0).all()


@pytest.mark.parametrize(
    ("labels", "settings", "message"),
    [
        ([0, 1], {}, "labels has the shape (2,); it must be (8,), one for each vector."),
        ([-1] * 8, {}, "no neuron has a cluster, so none can be found again."),
        ([0] * 8, {"share": 1.0}, "share is 1.0, but must be between 0 and 1."),
        ([0] * 8, {"n_draws": 0}, "n_draws is 0, but must be an integer of at least 1."),
    ],
)
def test_mistakes(labels, settings, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        cluster_stability(np.eye(8), labels, kmeans(1), **settings)
