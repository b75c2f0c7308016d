"""What every clustering of neurons returns: labels, their confidences, and the quality of the fit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from december_plugin.text.array_repr import ArrayRepr

NO_CLUSTER = -1  # label of a neuron without a cluster, as in scikit-learn


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ClusteringResult(ArrayRepr):
    """The clusters of N neurons.

    Attributes
    ----------
    labels
        Cluster of every neuron, (N,) int64, 0 to K - 1; -1 (:data:`NO_CLUSTER`) for a neuron without one, which only
        HDBSCAN leaves.
    confidences
        Largest responsibility of every neuron, (N,) float64, 1 / K to 1; all 1 for a method without responsibilities.
        For HDBSCAN, how deep the neuron is in its cluster, 0 to 1; 0 without a cluster.
    margins
        Largest minus second largest responsibility, (N,) float64: 0 = undecided between two clusters, 1 = certain.
    n_clusters
        Number of clusters K, those without neurons included.
    log_likelihood
        Mean log likelihood per neuron, nats; None for a method without a likelihood.
    converged
        Whether the fit ended because nothing changed any more, rather than at its maximum number of steps; None if
        unknown.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.clustering import cluster_readouts
    >>> vectors = np.array([[0.0, 0.0], [0.1, 0.0], [5.0, 5.0], [5.1, 5.0]])
    >>> found = cluster_readouts(vectors, method="kmeans", n_clusters=2)
    >>> found.labels[0] == found.labels[1], found.labels[0] == found.labels[2]
    (np.True_, np.False_)
    >>> found.n_clusters
    2
    """

    labels: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float64]
    margins: npt.NDArray[np.float64]
    n_clusters: int
    log_likelihood: float | None = None
    converged: bool | None = None
