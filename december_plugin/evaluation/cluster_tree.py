"""How clusters split as their number grows.

Partitions of the same neurons into more and more clusters do not form a tree as such: every K is fitted separately. How
nearly they form one is informative. Where a cluster for a larger K is within one for the smaller K, clusters split;
where it takes neurons from several, the two partitions cut the neurons in different ways (the picture is that of Zappia
and Oshlack 2018, clustree).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import SettingsError

NODE_COLUMNS = ("n_clusters", "cluster", "n_neurons", "parent", "parent_share", "root", "position")
EDGE_COLUMNS = ("n_clusters_from", "cluster_from", "n_clusters_to", "cluster_to", "n_neurons", "share_of_child")


@dataclass(frozen=True, eq=False)
class ClusterTree:
    """Clusters for several K, and the neurons that they have in common.

    Attributes
    ----------
    nodes
        One row per K and cluster: ``n_clusters``, ``cluster``, ``n_neurons``; ``parent``, the cluster for the next
        smaller K that holds most of its neurons, and ``parent_share``, which share of them (1: it is within its parent;
        NaN for the smallest K); ``root``, the cluster of the smallest K that parents lead to; ``position``, the order
        of the clusters of one K, from 0, in which edges cross little.
    edges
        One row per two clusters of neighbouring K that share neurons: ``n_clusters_from``, ``cluster_from``,
        ``n_clusters_to``, ``cluster_to``, ``n_neurons`` that they share, and ``share_of_child``, their share of the
        second cluster.
    """

    nodes: pd.DataFrame
    edges: pd.DataFrame

    @property
    def nesting(self) -> pd.DataFrame:
        """One row per K but the smallest: ``n_clusters`` and ``nested``, the share of neurons that follow a parent."""
        later = self.nodes.dropna(subset="parent_share")
        kept = (later["n_neurons"] * later["parent_share"]).groupby(later["n_clusters"]).sum()
        nested = kept / later.groupby("n_clusters")["n_neurons"].sum()
        return nested.rename("nested").reset_index()


def cluster_tree(partitions: Mapping[int, npt.ArrayLike]) -> ClusterTree:
    """Return how the clusters for every K are contained in those for the next smaller K.

    Parameters
    ----------
    partitions
        Number of clusters K to the clusters (N,) of the same neurons, integers; -1 for a neuron without one, which is
        left out wherever it has none.

    Raises
    ------
    SettingsError
        If there are fewer than two K, or the partitions are not (N,) of the same neurons.
    """
    counts = sorted(partitions)
    if len(counts) < 2:
        raise SettingsError(f"a cluster tree needs at least two numbers of clusters; there is {len(counts)}.")
    labels = {k: np.asarray(partitions[k]) for k in counts}
    if len({each.shape for each in labels.values()}) > 1 or labels[counts[0]].ndim != 1:
        shapes = ", ".join(str(each.shape) for each in labels.values())
        raise SettingsError(f"the partitions have the shapes {shapes}; all must be (N,), of the same neurons.")
    first = _sizes(counts[0], labels[counts[0]])
    levels = [first.assign(parent=np.nan, parent_share=np.nan, root=first["cluster"], position=np.arange(len(first)))]
    edges = []
    for few, many in itertools.pairwise(counts):
        shared = _shared(few, labels[few], many, labels[many])
        edges.append(shared)
        levels.append(_level(_sizes(many, labels[many]), shared, levels[-1]))
    nodes = pd.concat(levels, ignore_index=True)[list(NODE_COLUMNS)]
    return ClusterTree(nodes, pd.concat(edges, ignore_index=True)[list(EDGE_COLUMNS)])


def _sizes(n_clusters: int, labels: np.ndarray) -> pd.DataFrame:
    clusters, sizes = np.unique(labels[labels != NO_CLUSTER], return_counts=True)
    frame = pd.DataFrame({"n_clusters": n_clusters, "cluster": clusters.astype(np.int64), "n_neurons": sizes})
    return frame.sort_values(["n_neurons", "cluster"], ascending=[False, True], ignore_index=True)


def _shared(few: int, above: np.ndarray, many: int, below: np.ndarray) -> pd.DataFrame:
    both = (above != NO_CLUSTER) & (below != NO_CLUSTER)
    pairs, n_shared = np.unique(np.stack([above[both], below[both]]), axis=1, return_counts=True)
    frame = pd.DataFrame({"cluster_from": pairs[0], "cluster_to": pairs[1], "n_neurons": n_shared})
    sizes = frame.groupby("cluster_to")["n_neurons"].transform("sum")
    return frame.assign(n_clusters_from=few, n_clusters_to=many, share_of_child=frame["n_neurons"] / sizes)


def _level(sizes: pd.DataFrame, shared: pd.DataFrame, above: pd.DataFrame) -> pd.DataFrame:
    """Return the nodes of one K, ordered by the mean position of what their neurons come from."""
    largest = shared.sort_values(["share_of_child", "cluster_from"], ascending=[False, True], kind="stable")
    largest = largest.drop_duplicates("cluster_to").set_index("cluster_to")
    nodes = sizes.assign(
        parent=sizes["cluster"].map(largest["cluster_from"]),
        parent_share=sizes["cluster"].map(largest["share_of_child"]),
    )
    places = above.set_index("cluster")
    nodes["root"] = nodes["parent"].map(places["root"])
    weights = shared["share_of_child"] * shared["cluster_from"].map(places["position"])
    nodes["_mean"] = nodes["cluster"].map(weights.groupby(shared["cluster_to"]).sum())
    nodes["_parent"] = nodes["parent"].map(places["position"])
    order = nodes.sort_values(["_parent", "_mean", "cluster"], kind="stable").index
    nodes.loc[order, "position"] = np.arange(len(nodes))
    return nodes.astype({"position": "int64"}).drop(columns=["_mean", "_parent"]).sort_values("position")
