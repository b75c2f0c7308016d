"""Confusion of clusters and known types: counts, rows and columns matched, recall and precision per type.

Cluster numbers mean nothing, so clusters are matched to types one to one, such that as many neurons as possible are on
the diagonal (:mod:`december_plugin.evaluation.matching`).
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.embeddings.neuron_ids import NeuronIds, match_neurons
from december_plugin.errors import SettingsError
from december_plugin.evaluation.matching import match_counts
from december_plugin.text.array_repr import ArrayRepr

MISSING = (-1, "")  # in addition to None and NaN; as for december_plugin.evaluation.agreement.agreement_with_types

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class ConfusionMatrix(ArrayRepr):
    """Numbers of labelled neurons by cluster and known type, in the matched order.

    Attributes
    ----------
    counts
        (C, T) int64. Row ``i`` and column ``i`` are matched, for all ``i`` below ``n_matched``. Types come in their
        natural order, those without a cluster last; clusters without a type come last, the largest first.
    clusters
        The clusters of the rows; every cluster that the assignment uses has a row, even without labelled neurons.
    types
        The types of the columns.
    cluster_sizes
        (C,) int64, neurons of each cluster, labelled or not.
    n_matched
        Rows (and columns) that are matched: those that have neurons in common, at most the smaller of C and T.
    n_unlabelled
        Neurons of the assignment without a known type.
    n_unassigned
        Neurons with a known type that the assignment does not have.
    """

    counts: IntArray
    clusters: tuple[Any, ...]
    types: tuple[Any, ...]
    cluster_sizes: IntArray
    n_matched: int
    n_unlabelled: int
    n_unassigned: int

    @property
    def n_labelled(self) -> int:
        """Neurons that have a cluster and a known type."""
        return int(self.counts.sum())

    @property
    def recall(self) -> npt.NDArray[np.float64]:
        """(T,) share of each type's neurons that are in its cluster; 0 for a type without one."""
        return self._shares(self.counts.sum(axis=0))

    @property
    def precision(self) -> npt.NDArray[np.float64]:
        """(T,) share of each type among the labelled neurons of its cluster; NaN for a type without one."""
        sizes = np.zeros(len(self.types))
        sizes[: self.n_matched] = self.counts.sum(axis=1)[: self.n_matched]
        return self._shares(sizes)

    @property
    def accuracy(self) -> float:
        """Share of labelled neurons that are in the cluster of their type."""
        return float(np.diagonal(self.counts)[: self.n_matched].sum()) / self.n_labelled

    def _shares(self, totals: npt.ArrayLike) -> npt.NDArray[np.float64]:
        totals = np.asarray(totals, dtype=np.float64)
        hits = np.zeros(len(self.types))
        hits[: self.n_matched] = np.diagonal(self.counts)[: self.n_matched]
        return np.divide(hits, totals, out=np.full(len(hits), np.nan), where=totals > 0)

    def frame(self) -> pd.DataFrame:
        """Return the counts with clusters as index and types as columns."""
        index = pd.Index(self.clusters, name="cluster")
        return pd.DataFrame(self.counts, index=index, columns=pd.Index(self.types, name="type"))

    def per_type(self) -> pd.DataFrame:
        """Return one row per type: ``cluster`` (None without one), ``n_neurons``, ``recall``, ``precision``."""
        partners = [*self.clusters[: self.n_matched], *[None] * (len(self.types) - self.n_matched)]
        return pd.DataFrame(
            {
                "cluster": pd.Series(partners, dtype=object),
                "n_neurons": self.counts.sum(axis=0),
                "recall": self.recall,
                "precision": self.precision,
            }
        ).set_axis(pd.Index(self.types, name="type"))


def confusion_matrix(
    clusters: Any,
    types: Any,
    *,
    ids: Any = None,
    type_ids: Any = None,
    missing: Collection[Hashable] = MISSING,
    no_cluster: Hashable | None = None,
) -> ConfusionMatrix:
    """Count the neurons of every cluster and known type, and match clusters with types.

    Parameters
    ----------
    clusters
        Cluster of every neuron, (N,).
    types
        Known type of every neuron, (M,).
    ids, type_ids
        Identities that belong to ``clusters`` and to ``types``, in any form that
        :meth:`~december_plugin.embeddings.neuron_ids.NeuronIds.of` takes. Without them N must equal M.
    missing
        Values that mean "type unknown", in addition to None and NaN.
    no_cluster
        Cluster of neurons without one, e.g. -1 for HDBSCAN's: their row, if there is one, has no partner and comes
        last. None: every value is a cluster.

    Raises
    ------
    SettingsError
        If the lengths differ, only one of the two has identities, no type is known, or no typed neuron has a cluster.

    See Also
    --------
    agreement_with_types : One number for the same comparison.
    december_plugin.plots.confusion_figure : Draws it.

    Examples
    --------
    >>> from december_plugin.evaluation import confusion_matrix
    >>> matrix = confusion_matrix([0, 0, 1, 1, 1], ["ON", "ON", "OFF", "OFF", "ON"])
    >>> matrix.types, matrix.clusters
    (('ON', 'OFF'), (0, 1))
    >>> matrix.counts.tolist()
    [[2, 0], [1, 2]]
    """
    labels, known = _vector(clusters, "clusters"), _vector(types, "types")
    has_type = ~(pd.isna(known) | np.array([value in missing for value in known.tolist()], dtype=bool))
    if not has_type.any():
        raise SettingsError(f"none of the {len(known)} types is known (None, NaN and {_listed(missing)} are unknown).")
    at_label, at_type = _same_neurons(len(labels), known, has_type, ids, type_ids)
    row_names, rows = np.unique(labels, return_inverse=True)
    # Types that only neurons without a cluster have are columns, too: no cluster finds them.
    column_names = _natural(known[has_type])
    column = {name: position for position, name in enumerate(column_names)}
    counts = np.zeros((len(row_names), len(column_names)), dtype=np.int64)
    columns = np.array([column[name] for name in known[at_type].tolist()], dtype=np.int64)
    np.add.at(counts, (rows[at_label], columns), 1)
    sizes = np.bincount(rows, minlength=len(row_names))
    is_cluster = np.array([name != no_cluster for name in row_names.tolist()])
    at_cluster = np.flatnonzero(is_cluster)
    row_order, column_order, n_matched = matched_order(counts[at_cluster], sizes[at_cluster])
    row_order = np.concatenate([at_cluster[row_order], np.flatnonzero(~is_cluster)])
    return ConfusionMatrix(
        counts=counts[np.ix_(row_order, column_order)],
        clusters=tuple(row_names[row_order].tolist()),
        types=tuple(column_names[position] for position in column_order),
        cluster_sizes=sizes[row_order].astype(np.int64),
        n_matched=n_matched,
        n_unlabelled=len(labels) - len(at_label),
        n_unassigned=int(has_type.sum()) - len(at_type),
    )


def matched_order(counts: npt.ArrayLike, sizes: npt.ArrayLike | None = None) -> tuple[IntArray, IntArray, int]:
    """Return the order of rows and columns in which matched ones have the same position.

    Parameters
    ----------
    counts
        (C, T) numbers of neurons.
    sizes
        (C,) sizes by which rows without a partner are ordered, the largest first; None: by their counts.

    Returns
    -------
    rows, columns
        Permutations of C and T, (C,) and (T,) int64. Matched columns keep their order.
    n_matched
        How many are matched; at most the smaller of C and T, and fewer if the rest have no neuron in common.
    """
    table = np.asarray(counts)
    rows, columns = match_counts(table)
    weights = table.sum(axis=1) if sizes is None else np.asarray(sizes)
    left = np.setdiff1d(np.arange(table.shape[0]), rows)
    left = left[np.argsort(-weights[left], kind="stable")]
    others = np.setdiff1d(np.arange(table.shape[1]), columns)
    return np.concatenate([rows, left]), np.concatenate([columns, others]), len(rows)


def _same_neurons(
    n_clustered: int, known: np.ndarray, has_type: npt.NDArray[np.bool_], ids: Any, type_ids: Any
) -> tuple[IntArray, IntArray]:
    """Return the positions, among the clusters and among the types, of the neurons that have both."""
    labelled = np.flatnonzero(has_type).astype(np.int64)
    if ids is None and type_ids is None:
        if n_clustered != len(known):
            raise SettingsError(
                f"there are {n_clustered} clusters and {len(known)} types; they must belong to the same neurons. Pass "
                "the identities of both to match them by session and unit id."
            )
        return labelled, labelled
    if ids is None or type_ids is None:
        raise SettingsError("identities of clusters and types are needed both, or neither: pass ids and type_ids.")
    clustered, typed = NeuronIds.of(ids), NeuronIds.of(type_ids)
    for name, length, identities in (("clusters", n_clustered, clustered), ("types", len(known), typed)):
        if length != len(identities):
            raise SettingsError(f"there are {length} {name}, but identities of {len(identities)} neurons.")
    at_type, at_label = match_neurons(typed.take(labelled), clustered, common_only=True)
    return at_label, labelled[at_type]


def _vector(values: Any, name: str) -> np.ndarray:
    array = values if isinstance(values, np.ndarray) else np.array(list(values), dtype=object)
    if array.ndim != 1 or len(array) == 0:
        raise SettingsError(f"{name} has shape {array.shape}; it must be (N,), one entry per neuron.")
    if name == "clusters" and pd.isna(array).any():
        raise SettingsError(f"{int(pd.isna(array).sum())} neurons have no cluster (None or NaN).")
    return array


def _natural(values: Sequence[Any] | np.ndarray) -> list[Any]:
    """Return the different values in the order in which people write them: 2 before 10."""
    return sorted(dict.fromkeys(np.asarray(values).tolist()), key=lambda value: (len(str(value)), str(value)))


def _listed(values: Collection[Hashable]) -> str:
    return " and ".join(map(repr, values)) if values else "nothing else"
