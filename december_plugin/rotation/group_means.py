"""Alignment of every neuron to the mean of a group of neurons like it, instead of one mean of all.

One mean of all neurons is a blend of their types. A type that has little in common with it is turned to where its noise
resembles the blend, and comes out smeared over angles. The mean of a group is nearly free of noise and resembles its
members, so that they find their angle by what they have in common. Each neuron chooses a group and an angle, and the
means are taken again: k-means with the smallest distance over all shifts (Frey and Jojic 2002 do the same for images).
Means are turned to each other as neurons are, so that groups of one type come to the same orientation: there may be
more groups than types, and groups are not the clusters that are sought.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from december_plugin.clustering.distances import squared_distances
from december_plugin.clustering.kmeans import kmeans_start
from december_plugin.errors import EmbeddingError
from december_plugin.rotation.fitting import ramped_angles
from december_plugin.rotation.objective import AlignmentObjective
from december_plugin.rotation.settling import nearest_targets
from december_plugin.rotation.shifts import shifted

Floats = npt.NDArray[np.float64]

NEURONS_PER_GROUP = 10  # at least, on average: the mean of fewer is noise
PASSES = 15
KMEANS_STARTS = 3


@dataclass(frozen=True, eq=False)
class GroupedAngles:
    """What alignment to the means of groups found.

    Attributes
    ----------
    angles
        (N,) in radians, 0 to 2 pi.
    groups
        (N,) int64: the mean that every neuron was aligned to.
    means
        (G, O, F), each of which some neuron was aligned to.
    """

    angles: Floats
    groups: npt.NDArray[np.int64]
    means: Floats


def aligned_to_groups(vectors: Floats, start: Floats, *, n_means: int, seed: int) -> GroupedAngles:
    """Return angles at which every vector is nearest to one of the means of groups.

    Parameters
    ----------
    vectors
        (N, O, F), of length 1.
    start
        Angles (N,) in radians, of an alignment to the mean of all.
    n_means
        Groups at most; there are fewer where there are fewer than 10 neurons for each. If too few vectors differ, there
        is one group, the mean of all, which changes nothing.
    seed
        Seed of the k-means clustering of the vectors at their first angles, from which the groups start.
    """
    n_orientations = vectors.shape[1]
    flat = vectors.reshape(len(vectors), -1)
    angles, aligned = start, shifted(flat, start, n_orientations)
    groups = np.zeros(len(vectors), dtype=np.int64)
    of_all = GroupedAngles(angles, groups, _means(aligned, groups, vectors.shape[1:]))
    n_groups = min(n_means, len(vectors) // NEURONS_PER_GROUP)
    if n_groups < 2:
        return of_all
    try:
        centers, _ = kmeans_start(aligned, n_groups, seed=seed, n_init=KMEANS_STARTS)
    except EmbeddingError:  # fewer of them differ: there is no noise for several means to average out
        return of_all
    groups = squared_distances(torch.from_numpy(aligned), centers, torch.ones_like(centers)).argmin(dim=1).numpy()
    for _ in range(PASSES):
        means = _turned_to_each_other(_means(aligned, groups, vectors.shape[1:]))
        before = groups
        groups, angles = nearest_targets(vectors, means)
        aligned = shifted(flat, angles, n_orientations)
        if np.array_equal(groups, before):
            break
    chosen, groups = np.unique(groups, return_inverse=True)
    return GroupedAngles(angles, groups, means[chosen])


def _means(aligned: Floats, groups: npt.NDArray[np.int64], shape: tuple[int, ...]) -> Floats:
    """Return the means (G, O, F) of the groups that have members."""
    own = [aligned[groups == group].mean(axis=0) for group in np.unique(groups)]
    return np.stack(own).reshape(-1, *shape)


def _turned_to_each_other(means: Floats) -> Floats:
    flat = means.reshape(len(means), -1)
    directions = flat / np.linalg.norm(flat, axis=1, keepdims=True)
    objective = AlignmentObjective(torch.from_numpy(directions.reshape(means.shape)), power=2)
    turned = shifted(flat, ramped_angles(objective, np.zeros(len(means))), means.shape[1])
    return turned.reshape(means.shape)
