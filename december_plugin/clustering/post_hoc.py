"""Post hoc clusterings of readout vectors: the baselines that DECEMber is compared with.

They cluster the readouts of a model that was trained without a clustering loss, or was stopped at the end of the
pretraining (the control that shows what the clustering loss adds).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.cluster import HDBSCAN, AgglomerativeClustering
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import kneighbors_graph
from torch import Tensor

from december_plugin.clustering.density_paths import MixtureDensity, merge_tree, passes
from december_plugin.clustering.distances import as_vectors, check_magnitude, squared_distances
from december_plugin.clustering.kmeans import kmeans_start
from december_plugin.clustering.lean_sklearn import lean_sklearn
from december_plugin.clustering.methods import (
    FOUND,
    POST_HOC,
    GaussianMixtureSettings,
    checked_n_clusters,
    mistakes_in_settings,
)
from december_plugin.clustering.mutual_reachability import reachability_tree
from december_plugin.clustering.result import NO_CLUSTER, ClusteringResult
from december_plugin.clustering.student_t_mixture import StudentTMixture
from december_plugin.errors import EmbeddingError, MisfitError, NoClustersError, SettingsError, did_you_mean
from december_plugin.validation.checks import check_count, check_seed

WARD_BYTES_PER_PAIR = 8  # of neurons in either order: SciPy holds their distances twice
MOST_WARD_BYTES = 8e9
HDBSCAN_NEURONS = 5_000  # of more, scikit-learn's time for the spanning tree grows to hours


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class PostHocClustering(ClusteringResult):
    """A clustering of readout vectors, with what was fitted.

    Attributes
    ----------
    method, settings
        Name of the method, and every setting with the value used.
    """

    method: str
    settings: dict[str, Any]


def cluster_readouts(
    w: npt.ArrayLike | Tensor, *, method: str, n_clusters: int | None = None, seed: int = 0, **settings: Any
) -> PostHocClustering:
    """Cluster readout vectors after the training.

    Parameters
    ----------
    w
        Readout vectors (N, D), finite.
    method
        One of :data:`december_plugin.clustering.methods.POST_HOC`: "gmm", "kmeans", "t_mixture", "ward", "t_neb",
        "hdbscan".
    n_clusters
        Number of clusters K, 1 to N; None or 0 for a method that finds it.
    seed
        Seed of the fit, 0 to 2**32 - 1. Kept the same for all models that are compared, as in the paper. Irrelevant for
        a deterministic method.
    **settings
        Settings of the method, see :mod:`december_plugin.clustering.methods`.

    Returns
    -------
    PostHocClustering
        The same for the same vectors and settings on the same machine.

    Raises
    ------
    SettingsError
        For an unknown method or setting, a value that is not allowed, more clusters than neurons, or more neurons than
        the method has memory for.
    NoClustersError
        If a method that finds the number of clusters finds none.
    EmbeddingError
        If the vectors are not finite, do not form a matrix, or fewer than K of them differ ("kmeans", "t_mixture").

    See Also
    --------
    StudentTMixture : The mixture with its parameters and log likelihoods.
    december_plugin.embeddings.readout_embeddings : Readout vectors of a trained model.
    december_plugin.evaluation.compare_partitions : How well two clusterings agree.
    december_plugin.answer.study_readouts : Clusters several models and tests whether they agree better than surrogates.

    Examples
    --------
    >>> import numpy as np
    >>> from december_plugin.clustering import cluster_readouts
    >>> rng = np.random.default_rng(0)
    >>> readouts = np.concatenate([rng.normal(size=(50, 4)), rng.normal(size=(50, 4)) + 8])
    >>> found = cluster_readouts(readouts, method="t_mixture", n_clusters=2, weights="learned")
    >>> np.bincount(found.labels)
    array([50, 50])
    """
    if not isinstance(method, str) or method not in POST_HOC:
        raise SettingsError(
            f"method is {method!r}, which is unknown. {did_you_mean(str(method), POST_HOC)}", setting="method"
        )
    used = {**POST_HOC[method].defaults, **settings}
    check_seed("seed", seed)
    if "seed" in POST_HOC[method].defaults:
        used["seed"] = seed
    for mistake in mistakes_in_settings(method, used):
        raise mistake
    vectors = as_vectors(w if isinstance(w, Tensor) else np.asarray(w)).detach()
    check_magnitude(vectors)
    if POST_HOC[method].count == "given":
        check_count("n_clusters", n_clusters)
    n_clusters = checked_n_clusters(method, n_clusters, settings)
    if n_clusters > len(vectors):
        raise MisfitError(
            f"n_clusters is {n_clusters}, but there are only {len(vectors)} neurons. Choose n_clusters between 1 and "
            f"{len(vectors)}.",
            setting="n_clusters",
        )
    found = _FITS[method](vectors, n_clusters, used)
    return PostHocClustering(**vars(found), method=method, settings=used)


def margins_of(q: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the largest minus the second largest of the responsibilities (N, K) of every neuron, (N,)."""
    if q.shape[1] == 1:
        return np.asarray(q[:, 0])
    second, first = np.partition(q, -2, axis=1)[:, -2:].T
    return np.asarray(first - second)


def _gmm(w: Tensor, n_clusters: int, settings: dict[str, Any]) -> ClusteringResult:
    vectors = w.double().cpu().numpy()
    mixture = GaussianMixture(
        n_clusters,
        covariance_type=GaussianMixtureSettings(covariance=settings["covariance"]).covariance_type,
        reg_covar=float(settings["reg_covar"]),
        n_init=int(settings["n_init"]),
        max_iter=int(settings["max_iter"]),
        tol=float(settings["tol"]),
        random_state=int(settings["seed"]),
    )
    if len(vectors) < 2:
        raise SettingsError("gmm needs at least two neurons; there is 1.")
    with warnings.catch_warnings(), lean_sklearn():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` reports it
        try:
            mixture.fit(vectors)
        except ValueError as error:
            raise EmbeddingError(f"the Gaussian mixture cannot be fitted ({error}). Raise reg_covar.") from error
    q = mixture.predict_proba(vectors)
    log_likelihood = float(mixture.score(vectors))
    return ClusteringResult(
        labels=q.argmax(axis=1),
        confidences=q.max(axis=1),
        margins=margins_of(q),
        n_clusters=n_clusters,
        log_likelihood=log_likelihood if math.isfinite(log_likelihood) else None,
        converged=bool(mixture.converged_),
    )


def _kmeans(w: Tensor, n_clusters: int, settings: dict[str, Any]) -> ClusteringResult:
    centers, _ = kmeans_start(w, n_clusters, seed=settings["seed"], n_init=settings["n_init"])
    labels = squared_distances(w, centers, torch.ones_like(centers)).argmin(dim=1)
    means = torch.zeros_like(centers).index_add_(0, labels, w.double())
    means /= labels.bincount(minlength=n_clusters).clamp_min(1)[:, None]
    spread = (w.double() - w.double().mean(dim=0)).abs().max()
    converged = bool(((means - centers).abs().max() <= 1e-9 * spread).item())
    return ClusteringResult(
        labels=labels.cpu().numpy(),
        confidences=np.ones(len(w)),
        margins=np.ones(len(w)),
        n_clusters=n_clusters,
        converged=converged,
    )


def _t_mixture(w: Tensor, n_clusters: int, settings: dict[str, Any]) -> ClusteringResult:
    return _fitted_t_mixture(w, n_clusters, settings).result(w)


def _fitted_t_mixture(w: Tensor, n_components: int, settings: dict[str, Any]) -> StudentTMixture:
    shape = {name: settings[name] for name in ("dof", "weights", "scale_bounds")}
    mixture = StudentTMixture(n_components, w.shape[1], **shape).to(w.device)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `converged` reports it
        mixture.fit(w, **{name: settings[name] for name in ("seed", "n_init", "max_iter", "tol")})
    return mixture


def _ward(w: Tensor, n_clusters: int, settings: dict[str, Any]) -> ClusteringResult:
    vectors, n_neighbors = w.double().cpu().numpy(), settings["n_neighbors"]
    n = len(vectors)
    if n_neighbors is None and (needed := n**2 * WARD_BYTES_PER_PAIR) > MOST_WARD_BYTES:
        raise MisfitError(
            f"ward compares all pairs of {n:,} neurons, for which it needs {needed / 1e9:.0f} GB of memory; "
            f"{MOST_WARD_BYTES / 1e9:.0f} GB are allowed. Set n_neighbors, e.g. to 20: then only clusters of nearest "
            "neighbours are merged, and memory grows with the number of neurons.",
            setting="n_neighbors",
        )
    if n_neighbors is not None and n_neighbors >= n:
        raise MisfitError(
            f"n_neighbors is {n_neighbors}, but there are only {n} neurons. Choose fewer, or none.",
            setting="n_neighbors",
        )
    if n == 1:
        labels = np.zeros(1, dtype=np.int64)
    else:
        neighbors = None if n_neighbors is None else _neighbor_graph(vectors, n_neighbors)
        with warnings.catch_warnings(), lean_sklearn():
            # Parts that no neighbours connect are joined at their nearest neurons.
            warnings.filterwarnings("ignore", "the number of connected components", UserWarning)
            fitted = AgglomerativeClustering(n_clusters, linkage="ward", connectivity=neighbors).fit(vectors)
        labels = in_order_of_size(fitted.labels_)
    return ClusteringResult(
        labels=labels, confidences=np.ones(n), margins=np.ones(n), n_clusters=n_clusters, converged=True
    )


def _neighbor_graph(vectors: npt.NDArray[np.float64], n_neighbors: int) -> Any:
    graph = kneighbors_graph(vectors, n_neighbors, include_self=False)
    return 0.5 * (graph + graph.T)


def _t_neb(w: Tensor, n_clusters: int, settings: dict[str, Any]) -> ClusteringResult:
    n_components = int(settings["n_components"])
    if n_components > len(w):
        raise MisfitError(
            f"n_components is {n_components}, but there are only {len(w)} neurons. Choose fewer.",
            setting="n_components",
        )
    if n_clusters > n_components:
        raise MisfitError(
            f"n_clusters is {n_clusters}, but t_neb merges {n_components} components into clusters. Choose fewer "
            "clusters, or more n_components.",
            setting="n_clusters",
            others=["n_components"],
        )
    mixture = _fitted_t_mixture(w, n_components, settings)
    tree = merge_tree(passes(MixtureDensity(mixture)))
    responsibilities = mixture.predict_proba(w).double().cpu().numpy()
    shares = {"shares": responsibilities.mean(axis=0), "min_share": settings["min_share"]}
    clusters = tree.into(n_clusters, **shares) if n_clusters != FOUND else tree.apart(settings["min_depth"], **shares)
    n_found = int(clusters.max()) + 1
    q = np.zeros((len(w), n_found))
    for component, cluster in enumerate(clusters):
        q[:, cluster] += responsibilities[:, component]
    order = np.argsort(-np.bincount(q.argmax(axis=1), minlength=n_found), kind="stable")
    q = q[:, order]
    return ClusteringResult(
        labels=q.argmax(axis=1),
        confidences=np.minimum(q.max(axis=1), 1.0),
        margins=np.clip(margins_of(q), 0.0, 1.0),
        n_clusters=n_found,
        converged=mixture.converged_,
    )


def _hdbscan(w: Tensor, n_clusters: int, settings: dict[str, Any]) -> ClusteringResult:
    vectors, smallest = w.double().cpu().numpy(), settings["min_cluster_size"]
    for name in ("min_cluster_size", "min_samples"):
        if (value := settings[name]) is not None and value > len(vectors):
            raise MisfitError(
                f"{name} is {value}, but there are only {len(vectors)} neurons. Choose a smaller one.", setting=name
            )
    with lean_sklearn():
        if len(vectors) <= HDBSCAN_NEURONS:
            fitted = HDBSCAN(**settings, copy=True).fit(vectors)
        else:
            tree = reachability_tree(vectors, settings["min_samples"] or smallest)
            fitted = HDBSCAN(**{**settings, "min_samples": 1}, metric="precomputed", copy=True).fit(tree)
    if (fitted.labels_ == NO_CLUSTER).all():
        raise NoClustersError(
            f"HDBSCAN finds no cluster of at least {smallest} among {len(vectors):,} neurons: nowhere are they clearly "
            "denser than between. That is an answer; a smaller min_cluster_size or min_samples, fewer dimensions, or "
            "allow_single_cluster may give another one."
        )
    labels = in_order_of_size(fitted.labels_)
    depths = np.clip(fitted.probabilities_, 0.0, 1.0)
    return ClusteringResult(
        labels=labels, confidences=depths, margins=depths, n_clusters=int(labels.max()) + 1, converged=True
    )


def in_order_of_size(labels: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """Return clusters (N,) numbered from the largest to the smallest, equal ones by their first neuron.

    Neurons without a cluster, below 0, stay at -1.
    """
    given = np.asarray(labels)
    names, first, codes, sizes = np.unique(given, return_index=True, return_inverse=True, return_counts=True)
    is_cluster = names >= 0
    order = np.lexsort((first, -sizes, ~is_cluster))
    numbers = np.empty(len(names), dtype=np.int64)
    numbers[order] = np.arange(len(names))
    return np.where(is_cluster, numbers, NO_CLUSTER)[codes]


_FITS: dict[str, Callable[[Tensor, int, dict[str, Any]], ClusteringResult]] = {
    "gmm": _gmm,
    "kmeans": _kmeans,
    "t_mixture": _t_mixture,
    "ward": _ward,
    "t_neb": _t_neb,
    "hdbscan": _hdbscan,
}
