"""One-to-one matching of clusters."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from december_plugin.errors import SettingsError
from december_plugin.evaluation.calibration import calibration
from december_plugin.evaluation.confusion import confusion_matrix
from december_plugin.evaluation.consensus import consensus_partition
from december_plugin.evaluation.matching import match_clusters, match_counts, medoid_partition
from december_plugin.plots.groups import as_groupings
from december_plugin.report.cluster_colours import cluster_colors, type_colors

# The clusters 1 of the two are what is left over, and share no neuron.
REFERENCE, LABELS = [0, 0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1, 1]


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
        (REFERENCE, LABELS, [0, 0, 0, 0, 0, -1, -1]),
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


def of_confusion() -> list[bool]:
    table = confusion_matrix(LABELS, np.array(["a", "b"], dtype=object)[REFERENCE]).per_type()
    return [table.loc[kind, "cluster"] == cluster for kind, cluster in (("a", 0), ("b", 1))]


def of_consensus() -> list[bool]:
    found = consensus_partition([REFERENCE, REFERENCE, LABELS])
    assert found.clusters.tolist() == REFERENCE
    assert found.stability.tolist() == pytest.approx([1, 1, 1, 1, 2 / 3, 2 / 3, 2 / 3])
    return [number in found.votes[2] for number in (0, 1)]


def of_calibration() -> list[bool]:
    found = calibration(LABELS, [0.9] * 4 + [0.1] * 3, REFERENCE, n_bins=2)
    assert found.accuracy == pytest.approx(4 / 7)
    return [accuracy == 1 for accuracy in found.bins["accuracy"][::-1]]


def of_groupings() -> list[bool]:
    first, second = as_groupings({"first": REFERENCE, "second": LABELS}, 7, reference="first")
    return [color in first.colors for color in second.colors]


def of_report_colors() -> list[bool]:
    neurons = pd.DataFrame({"cluster": LABELS, "type": np.array(["a", "b"], dtype=object)[REFERENCE]})
    chosen: Any = SimpleNamespace(neurons=neurons)
    return [color in cluster_colors(chosen) for color in type_colors(chosen).values()]


@pytest.mark.parametrize("matched", [of_confusion, of_consensus, of_calibration, of_groupings, of_report_colors])
def test_clusters_without_a_common_neuron_are_matched_nowhere(matched: Any) -> None:
    assert matched() == [True, False]


def test_the_medoid_agrees_best_with_the_others() -> None:
    truth = np.arange(60) % 3
    noisy = np.random.default_rng(0).integers(0, 3, 60)
    slightly = truth.copy()
    slightly[:4] = (slightly[:4] + 1) % 3
    assert medoid_partition([noisy, slightly, truth, truth]) == 2
