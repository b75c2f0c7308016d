"""Trees of clusters over their number, against plain loops."""

import re

import numpy as np
import pandas as pd
import pytest

from december_plugin.errors import SettingsError
from december_plugin.evaluation.cluster_tree import cluster_tree
from december_plugin.plots import cluster_tree_figure


def test_a_split_and_a_cluster_of_two_parents():
    found = cluster_tree({2: [0, 0, 0, 0, 1, 1, 1, 1], 3: [5, 5, 5, 2, 2, 2, 2, 7]})
    nodes = found.nodes[found.nodes["n_clusters"] == 3].set_index("cluster")
    assert nodes["n_neurons"].to_dict() == {5: 3, 2: 4, 7: 1}
    assert nodes["parent"].to_dict() == {5: 0, 2: 1, 7: 1}
    assert nodes["parent_share"].to_dict() == {5: 1.0, 2: 0.75, 7: 1.0}
    assert nodes["root"].to_dict() == {5: 0, 2: 1, 7: 1}
    assert nodes["position"].to_dict() == {5: 0, 2: 1, 7: 2}
    assert found.nesting.to_dict("list") == {"n_clusters": [3], "nested": [7 / 8]}


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_of_plain_loops(seed):
    rng = np.random.default_rng(seed)
    labels = {k: rng.integers(-1, k, 60) for k in (7, 2, 4)}
    found = cluster_tree(labels)
    assert sorted(set(found.nodes["n_clusters"])) == [2, 4, 7]
    for edge in found.edges.to_dict("records"):
        above, below = labels[edge["n_clusters_from"]], labels[edge["n_clusters_to"]]
        shared = sum(a == edge["cluster_from"] and b == edge["cluster_to"] for a, b in zip(above, below, strict=True))
        of_child = sum(a >= 0 and b == edge["cluster_to"] for a, b in zip(above, below, strict=True))
        assert edge["n_neurons"] == shared
        assert edge["share_of_child"] == pytest.approx(shared / of_child)
    for count, level in found.nodes.groupby("n_clusters"):
        assert sorted(level["position"]) == list(range(len(level)))
        assert level["n_neurons"].sum() == (labels[count] >= 0).sum()


def test_nested_partitions_are_a_tree_without_crossings():
    neurons = np.arange(64)
    found = cluster_tree({k: neurons * k // 64 for k in (2, 4, 8)})
    assert (found.nesting["nested"] == 1).all()
    for count in (4, 8):
        parents = found.nodes[found.nodes["n_clusters"] == count].sort_values("position")["parent"]
        assert len(parents[parents != parents.shift()]) == count / 2  # children of one parent stand together


@pytest.mark.parametrize(
    ("partitions", "message"),
    [
        ({3: [0, 1, 2]}, "a cluster tree needs at least two numbers of clusters; there is 1."),
        (
            {2: [0, 1], 3: [0, 1, 2]},
            "the partitions have the shapes (2,), (3,); all must be (N,), of the same neurons.",
        ),
    ],
)
def test_mistakes(partitions, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        cluster_tree(partitions)


def test_a_figure_needs_its_columns():
    with pytest.raises(SettingsError, match=re.escape("the frame of nodes has no column 'n_clusters'; it has: a.")):
        cluster_tree_figure(pd.DataFrame({"a": [1]}), pd.DataFrame())
