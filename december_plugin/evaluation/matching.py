"""One-to-one matching of clusters, whose numbers are arbitrary: across seeds, and against known types.

Clusters are matched so that as many neurons as possible are in matched clusters (Hungarian method, Kuhn 1955; as in the
confusion matrices of the DECEMber paper). Two clusters that share no neuron are never matched, even if both are left
over.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import compare_partitions

IntArray = npt.NDArray[np.int64]
NO_PARTNER = -1


def match_counts(counts: npt.ArrayLike) -> tuple[IntArray, IntArray]:
    """Match the rows of a contingency table one to one with its columns.

    Parameters
    ----------
    counts
        (C, T) numbers of neurons that two clusters have in common.

    Returns
    -------
    rows, columns
        Matched rows and their columns, (M,) int64 each, by column. All of them have neurons in common.
    """
    from scipy.optimize import linear_sum_assignment

    table = np.asarray(counts)
    rows, columns = linear_sum_assignment(table, maximize=True)
    shared = table[rows, columns] > 0
    rows, columns = rows[shared], columns[shared]
    order = np.argsort(columns)
    return rows[order].astype(np.int64), columns[order].astype(np.int64)


def match_clusters(reference: npt.ArrayLike, labels: npt.ArrayLike) -> IntArray:
    """Return ``labels`` in the numbers of ``reference``: as many neurons as possible keep theirs, one to one.

    Parameters
    ----------
    reference, labels
        Clusters of the same neurons, (N,) integers of at least 0; -1 for neurons without a cluster, which is matched
        with nothing.

    Returns
    -------
    numpy.ndarray
        (N,) int64; -1 (:data:`NO_PARTNER`) for neurons of clusters without a partner: those that are left over, or
        share no neuron with the clusters of ``reference`` that are left over; and for neurons without a cluster.

    Raises
    ------
    SettingsError
        If the two do not have the same shape (N,).

    See Also
    --------
    compare_partitions : Agreement that does not depend on the numbers.
    consensus_partition : The partition on which several seeds agree.

    References
    ----------
    Kuhn HW (1955). The Hungarian method for the assignment problem. *Naval Research Logistics Quarterly* 2, 83-97.
    https://doi.org/10.1002/nav.3800020109

    Examples
    --------
    >>> from december_plugin import match_clusters
    >>> match_clusters([0, 0, 0, 1, 1], [2, 2, 5, 5, 5]).tolist()
    [0, 0, 1, 1, 1]
    """
    if labels is reference:
        return np.asarray(reference, dtype=np.int64)
    first, second = np.asarray(reference, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    if first.shape != second.shape or first.ndim != 1:
        raise SettingsError(f"the clusters have shapes {first.shape} and {second.shape}; both must be (N,).")
    names, rows = np.unique(second, return_inverse=True)
    targets, columns = np.unique(first, return_inverse=True)
    counts = np.zeros((len(names), len(targets)), dtype=np.int64)
    np.add.at(counts, (rows, columns), 1)
    counts[names == NO_CLUSTER], counts[:, targets == NO_CLUSTER] = 0, 0
    matched_rows, matched_columns = match_counts(counts)
    partner = np.full(len(names), NO_PARTNER, dtype=np.int64)
    partner[matched_rows] = targets[matched_columns]
    return partner[rows]


def medoid_partition(labels: Sequence[npt.ArrayLike]) -> int:
    """Return the position of the medoid: the partition with the largest sum of adjusted Rand indices with all others.

    Parameters
    ----------
    labels
        For each of S partitions the clusters of the same neurons, (N,).
    """
    agreement = np.zeros((len(labels), len(labels)))
    for a in range(len(labels)):
        for b in range(a + 1, len(labels)):
            agreement[a, b] = agreement[b, a] = compare_partitions(
                labels[a], labels[b], no_cluster=NO_CLUSTER
            ).adjusted_rand_index
    return int(agreement.sum(axis=1).argmax())
