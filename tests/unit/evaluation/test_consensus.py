"""Consensus of partitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from december_plugin.errors import SettingsError
from december_plugin.evaluation.consensus import consensus_clusters, consensus_partition, majority
from december_plugin.evaluation.matching import match_clusters


def test_the_majority_counts_and_ties_go_to_the_favourite():
    votes = np.array([[0, 0, 1, 2, -2], [0, 1, 1, 0, 1], [1, 1, 2, 1, -2]])
    winners, shares = majority(votes, ties=np.array([0, 0, 1, 2, 3]))
    assert winners.tolist() == [0, 1, 1, 2, 1]
    assert shares.tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1 / 3, 1 / 3])


def test_consensus_of_planted_types_with_neurons_moved_by_each_seed():
    rng = np.random.default_rng(1)
    types = rng.permutation(np.arange(300) % 5)
    labels, moved = [], []
    for seed in range(5):
        own = types.copy()
        at = np.arange(10) + 20 * seed
        own[at] = (own[at] + 1) % 5
        moved.append(at)
        labels.append(rng.permutation(5)[own])
    found = consensus_partition(labels)
    reference = labels[found.reference]
    expected = match_clusters(reference, types)
    np.testing.assert_array_equal(found.clusters, expected)
    stability = np.ones(300)
    stability[np.concatenate(moved)] = 0.8
    np.testing.assert_allclose(found.stability, stability)
    np.testing.assert_array_equal(found.unanimous, stability == 1)
    assert found.unanimous_fraction == pytest.approx(250 / 300)
    clusters = consensus_clusters(found)
    assert sum(cluster.n_neurons for cluster in clusters) == 300
    assert sum(cluster.n_unanimous for cluster in clusters) == 250
    assert all(cluster.n_neurons == 60 for cluster in clusters)
    means = [stability[expected == cluster.cluster].mean() for cluster in clusters]
    assert [cluster.mean_stability for cluster in clusters] == pytest.approx(means)


def test_equal_partitions_are_unanimous():
    labels = np.array([2, 2, 0, 1])
    found = consensus_partition([labels, labels + 3, 5 - labels])
    assert found.unanimous.all()
    assert found.stability.tolist() == [1.0] * 4


partitions = st.integers(2, 4).flatmap(lambda n_seeds: hnp.arrays(np.int64, (n_seeds, 12), elements=st.integers(0, 4)))


@settings(max_examples=60, deadline=None)
@given(partitions)
def test_what_always_holds(labels):
    found = consensus_partition(list(labels))
    n_seeds = len(labels)
    assert ((found.stability >= 0) & (found.stability <= 1)).all()
    np.testing.assert_allclose(found.stability, (found.votes == found.clusters).sum(axis=0) / n_seeds)
    assert set(found.clusters) <= set(labels[found.reference])
    np.testing.assert_array_equal(found.unanimous, found.stability == 1)


@settings(max_examples=30, deadline=None)
@given(partitions)
def test_the_order_of_the_neurons_does_not_matter(labels):
    order = np.random.default_rng(0).permutation(labels.shape[1])
    found, shuffled = consensus_partition(list(labels)), consensus_partition(list(labels[:, order]))
    if found.reference == shuffled.reference and np.array_equal(found.votes[:, order], shuffled.votes):
        np.testing.assert_array_equal(found.clusters[order], shuffled.clusters)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[0, 1]], "a consensus needs at least two seeds; there is 1."),
        ([[0, 1], [0, 1, 1]], "the labels of the seeds have the shapes (2,), (3,); all must be (N,), one label for"),
        ([[], []], "the labels of the seeds have the shapes (0,); all must be (N,), one label for each"),
        ([[0, 1], [0, -2]], "labels must be integers of at least 0, the clusters' numbers, or -1 for no cluster."),
        ([[0, 1], [0.0, 1.0]], "labels must be integers of at least 0, the clusters' numbers, or -1 for no cluster."),
    ],
)
def test_mistakes(labels, message):
    with pytest.raises(SettingsError) as raised:
        consensus_partition(labels)
    assert str(raised.value).startswith(message)


def test_no_cluster_is_a_vote_too():
    found = consensus_partition([[0, 0, 0, 1, 1, 1, -1], [1, 1, 1, 0, 0, -1, -1], [4, 4, -1, 2, 2, -1, 2]])
    assert found.clusters.tolist() == [0, 0, 0, 1, 1, -1, -1]
    np.testing.assert_allclose(found.stability, [1, 1, 2 / 3, 1, 1, 2 / 3, 2 / 3])
    assert found.unanimous.tolist() == [True, True, False, True, True, False, False]
    assert [(each.cluster, each.n_neurons) for each in consensus_clusters(found)] == [(0, 3), (1, 2)]


def test_to_be_without_a_cluster_in_all_seeds_is_no_common_cluster():
    found = consensus_partition([[0, 0, 1, -1], [1, 1, 0, -1]])
    assert found.clusters.tolist()[3] == -1
    assert found.unanimous.tolist() == [True, True, True, False]
    assert found.unanimous_fraction == 0.75
