"""How stable the clusters of one model are when parts of its neurons are clustered again.

Agreement between seeds needs several models. With a single one, every cluster is looked for among the clusters of
random parts of the neurons: a cluster that exists whichever neurons are left out has a Jaccard similarity near 1 with
one of those found; a cluster that depends on the other neurons falls apart (Hennig 2007, "Cluster-wise assessment of
cluster stability").

Stability says less than agreement between seeds: all parts share one training and its basis. And it is not 0 without
clusters: slices of a continuum are found again, too, the more reliably the fewer there are. :func:`stability_null` says
how well.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import NoClustersError, SettingsError
from december_plugin.evaluation.agreement import compare_partitions
from december_plugin.evaluation.null import NullBand, SurrogateReadouts, null_band, surrogates_of
from december_plugin.text.array_repr import ArrayRepr
from december_plugin.validation.checks import check_count, check_seed, is_number

FloatArray = npt.NDArray[np.float64]
PartClusterer = Callable[[FloatArray], npt.ArrayLike]
DEFAULT_RESAMPLINGS = 20
DEFAULT_SHARE = 0.5
MOST_RESAMPLED = 20_000  # neurons of a single model whose clusters a report resamples
# Hennig's reading of a mean Jaccard similarity: above the first a cluster is stable, below the second it dissolves.
STABLE, DISSOLVED = 0.75, 0.5


@dataclass(frozen=True, eq=False, repr=False)
class ClusterStability(ArrayRepr):
    """The clusters of one model, found again in parts of its neurons.

    Attributes
    ----------
    clusters, sizes
        The clusters (K,) that have neurons, and how many.
    similarities
        Jaccard similarity (draws, K) of every cluster, as far as its neurons were drawn, with the most similar cluster
        of the part; NaN where none of its neurons was drawn.
    agreements
        Adjusted Rand index (draws,) between the clusters and those of the part, over its neurons.
    """

    clusters: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    similarities: FloatArray
    agreements: FloatArray

    @property
    def mean(self) -> FloatArray:
        """Mean Jaccard similarity (K,) over draws; NaN for a cluster that was never drawn."""
        return self._over_draws(np.nanmean)

    @property
    def sd(self) -> FloatArray:
        """Its standard deviation (K,) over draws (divisor n)."""
        return self._over_draws(np.nanstd)

    @property
    def overall(self) -> float:
        """Mean over clusters, weighted with their neurons."""
        known = np.isfinite(self.mean)
        return float(np.average(self.mean[known], weights=self.sizes[known]))

    def _over_draws(self, of: Callable[..., FloatArray]) -> FloatArray:
        drawn = np.isfinite(self.similarities).any(axis=0)
        found = np.full(len(self.clusters), np.nan)
        found[drawn] = of(self.similarities[:, drawn], axis=0)
        return found


def cluster_stability(
    vectors: npt.ArrayLike,
    labels: npt.ArrayLike,
    cluster: PartClusterer,
    *,
    n_draws: int = DEFAULT_RESAMPLINGS,
    share: float = DEFAULT_SHARE,
    seed: int = 0,
) -> ClusterStability:
    """Cluster random parts of the neurons, and look for the clusters in those of every part.

    Parameters
    ----------
    vectors
        (N, D), in the space in which they are clustered.
    labels
        Clusters (N,) of all neurons, -1 for a neuron without one.
    cluster
        Returns the clusters of some vectors, by the method that clustered all of them. If it raises a NoClustersError,
        no cluster is found again.
    n_draws
        Number of parts.
    share
        Share of the neurons that a part has, drawn without replacement, between 0 and 1.
    seed
        Seed of the draws.

    Raises
    ------
    SettingsError
        If a setting is not allowed, there is no label for every vector, or no neuron has a cluster.

    See Also
    --------
    consensus_partition : How stable neurons are across seeds.
    null_agreement : The agreement to expect without clusters.
    december_plugin.results.stability_table : The stability of clusters in the database.

    References
    ----------
    Hennig C (2007). Cluster-wise assessment of cluster stability. *Computational Statistics & Data Analysis* 52,
    258-271. https://doi.org/10.1016/j.csda.2006.11.025

    Examples
    --------
    Two groups are found again in parts of the neurons; an arbitrary cut through one of them would not be.

    >>> import numpy as np
    >>> from december_plugin.clustering import cluster_readouts
    >>> from december_plugin.evaluation import cluster_stability
    >>> rng = np.random.default_rng(0)
    >>> readouts = np.concatenate([rng.normal(size=(60, 3)), rng.normal(size=(60, 3)) + 6])
    >>> def cluster(vectors):
    ...     return cluster_readouts(vectors, method="kmeans", n_clusters=2).labels
    >>> found = cluster_stability(readouts, cluster(readouts), cluster, n_draws=5)
    >>> found.similarities.mean(axis=0).round(2).tolist()  # Jaccard similarity of each cluster
    [1.0, 1.0]
    """
    points, clusters = np.asarray(vectors, dtype=np.float64), np.asarray(labels)
    if points.ndim != 2 or clusters.shape != (len(points),):
        raise SettingsError(f"labels has the shape {clusters.shape}; it must be ({len(points)},), one for each vector.")
    if not is_number(share) or not 0 < share < 1:
        raise SettingsError(f"share is {share!r}, but must be between 0 and 1.", setting="share")
    names, sizes = np.unique(clusters[clusters != NO_CLUSTER], return_counts=True)
    if not len(names):
        raise SettingsError("no neuron has a cluster, so none can be found again.")
    check_seed("seed", seed)
    n_part = max(1, round(share * len(points)))
    similarities, agreements = [], []
    for number in range(check_count("n_draws", n_draws)):
        rng = np.random.default_rng([seed, number])
        part = np.sort(rng.choice(len(points), n_part, replace=False))
        again = _clustered(cluster, points[part])
        similarities.append(_similarities(names, clusters[part], again))
        agreements.append(compare_partitions(clusters[part], again, no_cluster=NO_CLUSTER).adjusted_rand_index)
    return ClusterStability(names.astype(np.int64), sizes, np.array(similarities), np.array(agreements))


def _clustered(cluster: PartClusterer, vectors: FloatArray) -> npt.NDArray[np.int64]:
    try:
        return np.asarray(cluster(vectors), dtype=np.int64)
    except NoClustersError:
        return np.full(len(vectors), NO_CLUSTER, dtype=np.int64)


def _similarities(names: np.ndarray, labels: np.ndarray, again: np.ndarray) -> FloatArray:
    """Return the largest Jaccard similarity (K,) of every cluster with one of ``again``."""
    others = np.unique(again[again != NO_CLUSTER])
    members, found = labels[:, None] == names, again[:, None] == others
    shared = members.T.astype(np.float64) @ found.astype(np.float64)
    union = members.sum(axis=0)[:, None] + found.sum(axis=0) - shared
    largest = (shared / union).max(axis=1, initial=0.0)
    return np.where(members.any(axis=0), largest, np.nan)


def stability_null(
    vectors: npt.ArrayLike,
    cluster: PartClusterer,
    observed: float,
    *,
    n_surrogates: int,
    n_draws: int = DEFAULT_RESAMPLINGS,
    share: float = DEFAULT_SHARE,
    method: str = "elliptical",
    seed: int = 0,
) -> NullBand:
    """Compare the stability of one model's clusters with that of clusters of surrogates that have none.

    Parameters
    ----------
    vectors, cluster, n_draws, share
        As for :func:`cluster_stability`.
    observed
        :attr:`ClusterStability.overall` of the real clusters.
    n_surrogates
        Number of surrogates (:mod:`december_plugin.evaluation.null`); the smallest p value is ``1 / (1 + this)``. Each
        is clustered ``1 + n_draws`` times.
    method, seed
        Method and seed of the surrogates, see :class:`~december_plugin.evaluation.null.SurrogateReadouts`.
    """
    surrogates = surrogates_of([np.asarray(vectors, dtype=np.float64)], method=method, seed=seed)
    values = [
        surrogate_stability(surrogates, number, cluster, n_draws=n_draws, share=share, seed=seed)
        for number in range(check_count("n_surrogates", n_surrogates))
    ]
    return null_band(values, observed)


def surrogate_stability(
    surrogates: Sequence[SurrogateReadouts],
    number: int,
    cluster: PartClusterer,
    *,
    n_draws: int = DEFAULT_RESAMPLINGS,
    share: float = DEFAULT_SHARE,
    seed: int = 0,
) -> float:
    """Return :attr:`ClusterStability.overall` of a surrogate, the highest of its kinds; 0 without clusters.

    Parameters
    ----------
    surrogates
        One of each kind, of one model, as :func:`december_plugin.evaluation.null.surrogates_of` returns them.
    number
        Number of the draw.
    cluster, n_draws, share, seed
        As for :func:`cluster_stability`.
    """
    return max(_overall(kind.draw(number).readouts[0], cluster, n_draws, share, seed) for kind in surrogates)


def _overall(drawn: FloatArray, cluster: PartClusterer, n_draws: int, share: float, seed: int) -> float:
    labels = _clustered(cluster, drawn)
    if (labels == NO_CLUSTER).all():
        return 0.0
    return cluster_stability(drawn, labels, cluster, n_draws=n_draws, share=share, seed=seed).overall
