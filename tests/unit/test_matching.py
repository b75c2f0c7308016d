"""One-to-one matching of clusters."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from december_plugin.errors import SettingsError
from december_plugin.evaluation.matching import match_clusters, match_counts, most_typical


def test_matching_keeps_most_neurons_together() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        reference, labels = rng.integers(0, 4, 30), rng.integers(0, 4, 30)
        kept = (match_clusters(reference, labels) == reference).sum()
        best = max((np.array(order)[labels] == reference).sum() for order in itertools.permutations(range(4)))
        assert kept == best


@pytest.mark.parametrize(
    ("reference", "labels", "expected"),
    [
        ([0, 0, 1, 1, 2, 2], [5, 5, 3, 3, 0, 5], [0, 0, 1, 1, 2, 0]),
        ([4, 4, 4], [0, 1, 0], [4, -1, 4]),  # one cluster too many
        ([0, 0, 0, 1, 1, 1], [4, 4, 2, 1, 1, 1], [0, 0, -1, 1, 1, 1]),
        ([0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, -1, -1]),  # 1 and 1 share no neuron
    ],
)
def test_matched_clusters(reference: list[int], labels: list[int], expected: list[int]) -> None:
    assert match_clusters(reference, labels).tolist() == expected
    assert match_clusters(np.array(reference), np.array(labels)).tolist() == expected


def test_matched_clusters_always_have_neurons_in_common() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        counts = rng.integers(0, 3, size=rng.integers(1, 6, size=2)) * rng.integers(0, 2)
        rows, columns = match_counts(counts)
        assert (counts[rows, columns] > 0).all()
        assert (np.diff(columns) > 0).all()
        assert len(set(rows.tolist())) == len(rows)


def test_clusters_of_other_neurons() -> None:
    with pytest.raises(SettingsError, match=r"the clusters have shapes \(2,\) and \(1,\); both must be \(N,\)\."):
        match_clusters([0, 1], [0])


def test_the_most_typical_agrees_best_with_the_others() -> None:
    truth = np.arange(60) % 3
    noisy = np.random.default_rng(0).integers(0, 3, 60)
    slightly = truth.copy()
    slightly[:4] = (slightly[:4] + 1) % 3
    assert most_typical([noisy, slightly, truth, truth]) == 2
