"""Valleys between clusters: whether there are fewer neurons between them than in them.

Seeds also agree on clusters that are parts of a continuum, if it has a shape that surrogates lack, such as a ring.
Types differ from parts of any continuum in that there are few neurons between them. A valley is sought on the line
between the centres of two clusters: how far does the density of their neurons, each cluster counted as one, fall
between its peaks? Parts of a ring, or of a curved sheet, that are opposite each other have a valley between them as
well, but are connected through others. So the passes that count are those of the tree that connects all clusters over
passes as shallow as possible, as in t-NEB (:mod:`december_plugin.clustering.density_paths`).

Neurons are compared in all seeds at once, their vectors side by side: what seeds do not share averages out. A depth
that few neurons show is uncertain, so each is weighted by the root of their number.

Parts of a ring have shallow valleys between them, too: on the line between their centres a bend is dense at its ends.
So what counts as a valley is not only deeper than those of surrogates, but much deeper (:func:`is_deep`).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import minimum_spanning_tree

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.evaluation.agreement import SIGNIFICANT

FloatArray = npt.NDArray[np.float64]

BANDWIDTH = 0.15  # of the density along a line, in units of the distance between the centres
N_POINTS = 21  # at which it is evaluated, both centres included
FEWEST = 3  # neurons of a cluster that can have a peak
# Times as deep as valleys of surrogates: chosen in studies/surrogates, on rings, sparse continua and unequal types.
LEAST_EXCESS = 1.75


def valleys_between(readouts: Sequence[npt.ArrayLike], labels: Sequence[npt.ArrayLike]) -> FloatArray:
    """Return how distinct the valleys between the clusters of every seed are.

    Parameters
    ----------
    readouts
        For every seed the vectors (N, D) of the same neurons; D may differ.
    labels
        For every seed the clusters (N,) of these neurons, -1 for none.

    Returns
    -------
    ndarray
        (S,) float64: mean depth of the passes that connect the clusters, weighted by the root of the number of neurons
        in the smaller cluster, from 0, where the density does not fall, to 1, where no neuron is near. 0 for fewer than
        two clusters; clusters of fewer than three neurons, and those that have no peak, count as connected.
    """
    seeds = [_scaled(np.asarray(own, dtype=np.float64)) for own in readouts]
    return np.array([_valleys(seeds, np.asarray(own)) for own in labels])


def _scaled(vectors: FloatArray) -> FloatArray:
    """Return the vectors (N, D) about their mean, with the same total variance for every seed."""
    centered = vectors - vectors.mean(axis=0)
    spread = np.sqrt((centered**2).sum() / len(centered))
    return centered / spread if spread > 0 else centered


def _valleys(seeds: Sequence[FloatArray], labels: npt.NDArray[np.int64]) -> float:
    has_cluster = labels != NO_CLUSTER
    _, members, counts = np.unique(labels[has_cluster], return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return 0.0
    depths = pass_depths([own[has_cluster] for own in seeds], members, counts)
    # Edges of length 0 would be left out, so all are longer by 1.
    tree = minimum_spanning_tree(depths + 1.0).tocoo()
    smaller = np.minimum(counts[tree.row], counts[tree.col])
    return float(np.average(tree.data - 1.0, weights=np.sqrt(smaller)))


def is_deep(valleys: npt.ArrayLike, null_valleys: npt.ArrayLike, p_value: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Return whether valleys are significantly and much deeper than those of surrogates; False for NaN.

    Valleys are much deeper if they are :data:`LEAST_EXCESS` times as deep, or leave a density that many times smaller.
    The latter is for types that hardly touch: their surrogates keep the values of every channel, and with them gaps,
    and no valley is deeper than 1.

    Parameters
    ----------
    valleys
        Depths for the real clusters, mean over seeds.
    null_valleys
        Depths for surrogates, mean over seeds and draws.
    p_value
        p values of the real depths among those of the draws.
    """
    depths, null_depths = np.asarray(valleys), np.asarray(null_valleys)
    much = (depths >= LEAST_EXCESS * null_depths) | (LEAST_EXCESS * (1 - depths) <= 1 - null_depths)
    return np.asarray(much & (np.asarray(p_value) <= SIGNIFICANT))


def pass_depths(
    seeds: Sequence[FloatArray], members: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> FloatArray:
    """Return how far the density falls on the straight line between any two clusters.

    Parameters
    ----------
    seeds
        For every seed the vectors (N, D); a neuron's place is that in all of them, side by side.
    members
        (N,) cluster of every neuron, 0 to K - 1.
    counts
        (K,) neurons of every cluster.

    Returns
    -------
    ndarray
        (K, K) float64, symmetric, 0 to 1.
    """
    n_clusters = len(counts)
    along, products = np.zeros((len(members), n_clusters)), np.zeros((n_clusters, n_clusters))
    for vectors in seeds:  # inner products with the centres are all that lines need, and add up over seeds
        centers = np.zeros((n_clusters, vectors.shape[1]))
        np.add.at(centers, members, vectors)
        centers /= counts[:, None]
        along += vectors @ centers.T
        products += centers @ centers.T
    depths = np.zeros((n_clusters, n_clusters))
    own = [along[members == cluster] for cluster in range(n_clusters)]
    for i, j in itertools.combinations(range(n_clusters), 2):
        length = products[i, i] + products[j, j] - 2 * products[i, j]
        if min(counts[i], counts[j]) < FEWEST or length <= 0:
            continue
        places = [(each[:, j] - each[:, i] - products[i, j] + products[i, i]) / length for each in (own[i], own[j])]
        depths[i, j] = depths[j, i] = _depth(*places)
    return depths


def _depth(first: FloatArray, second: FloatArray) -> float:
    """Return how far the density falls between its peaks; the neurons' places are in units of the centres, 0 and 1."""
    points, middle = np.linspace(0.0, 1.0, N_POINTS), N_POINTS // 2
    density = np.zeros(N_POINTS)
    for places in (first, second):
        density += np.exp(-0.5 * ((points[:, None] - places) / BANDWIDTH) ** 2).mean(axis=1)
    peaks = int(np.argmax(density[: middle + 1])), middle + int(np.argmax(density[middle:]))
    lower = min(density[peaks[0]], density[peaks[1]])
    # Between centres that are close to each other in wide clusters there may be no neurons at all, and then no peak.
    return float(1 - density[peaks[0] : peaks[1] + 1].min() / lower) if lower > 0 else 0.0
