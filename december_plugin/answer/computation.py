"""What a study computes: every clustering of every model, how models agree, and how they agree on surrogates.

The work is cut into independent tasks, each with its own seed, so results do not depend on the number of processes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.answer.models import StudiedModels
from december_plugin.answer.settings import StudySettings
from december_plugin.clustering.methods import FOUND, METHODS
from december_plugin.clustering.post_hoc import PostHocClustering, cluster_readouts
from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.errors import NoClustersError
from december_plugin.evaluation.agreement import compare_partitions
from december_plugin.evaluation.model_selection import ClusterQuality, cluster_quality
from december_plugin.evaluation.null import NullBand, SurrogateReadouts, clustered_draws, null_band, surrogates_of
from december_plugin.evaluation.stability import (
    DEFAULT_RESAMPLINGS,
    DEFAULT_SHARE,
    MOST_RESAMPLED,
    ClusterStability,
    cluster_stability,
    surrogate_stability,
)
from december_plugin.evaluation.valleys import valleys_between

# What makes a configuration; the number of clusters is 0 where the method finds it.
KEY = ("method", "n_clusters")
THREADS_FROM = 1 << 20  # numbers in the vectors of a model

Configuration = tuple[str, int]
Told = Callable[[str, int], None]


@dataclass(frozen=True, eq=False)
class Comparison:
    """Agreement between models and valleys between their clusters on surrogates, and the real valleys.

    Attributes
    ----------
    agreements
        Adjusted Rand indices on surrogates, (draws, pairs of models), pairs as ``itertools.combinations``.
    null_valleys
        On surrogates, (draws, models), see :func:`~december_plugin.evaluation.valleys.valleys_between`.
    valleys
        Between the real clusters, (models,).
    """

    agreements: npt.NDArray[np.float64]
    null_valleys: npt.NDArray[np.float64]
    valleys: npt.NDArray[np.float64]


@dataclass(eq=False)
class Computation:
    """The results of a study.

    Attributes
    ----------
    clusterings
        Method and K to the clustering of every model.
    quality
        Method and K to the criteria of every model.
    null
        Method and K to the comparison with surrogates; empty without a null.
    failed
        Method and K to the reason for a missing clustering: a method that finds the number of clusters found none in
        one of the models.
    """

    clusterings: dict[Configuration, list[PostHocClustering]] = field(default_factory=dict)
    quality: dict[Configuration, list[ClusterQuality]] = field(default_factory=dict)
    null: dict[Configuration, Comparison] = field(default_factory=dict)
    failed: dict[Configuration, str] = field(default_factory=dict)

    def count_of(self, method: str, count: int) -> int:
        """Return the number of clusters that a configuration is called by: where it was found, the median over models.

        It is the smaller one of two in the middle, so that every configuration has one place.
        """
        if count != FOUND:
            return count
        found = [_n_clusters(clusters) for clusters in self.clusterings[method, count]]
        return int(np.quantile(found, 0.5, method="lower"))

    def pairs(self, models: StudiedModels) -> pd.DataFrame:
        """Return one row per configuration and pair of models: all measures of their agreement."""
        rows = []
        for (method, count), found in self.clusterings.items():
            described = {"method": method, "n_clusters": self.count_of(method, count)}
            for a, b in itertools.combinations(range(len(models)), 2):
                both = models.shared(a, b)
                labels = [found[at].labels[models.places(at, both)] for at in (a, b)]
                agreement = compare_partitions(*labels, no_cluster=NO_CLUSTER)
                rows.append({**described, "model_a": models.names[a], "model_b": models.names[b], **asdict(agreement)})
        return pd.DataFrame(rows)

    def models(self, models: StudiedModels) -> pd.DataFrame:
        """Return one row per configuration and model: the outcome of the clustering, and the criteria for K."""
        rows = []
        for (method, count), found in self.clusterings.items():
            for name, clusters, quality in zip(models.names, found, self.quality[method, count], strict=True):
                described = {"method": method, "n_clusters": self.count_of(method, count), "model": name}
                described["n_clusters_found"] = _n_clusters(clusters)
                described["n_without_cluster"] = int((clusters.labels == NO_CLUSTER).sum())
                described["mean_confidence"] = float(clusters.confidences.mean())
                described["log_likelihood"] = np.nan if clusters.log_likelihood is None else clusters.log_likelihood
                described["converged"] = clusters.converged
                rows.append({**described, **asdict(quality)})
        return pd.DataFrame(rows)


def n_clusterings(models: StudiedModels, settings: StudySettings) -> int:
    """Return how many clusterings a study takes, including those of surrogates."""
    n_found = len(models) * len(settings.configurations)
    if len(models) > 1:
        return n_found * (1 + settings.null_draws)
    return n_found + (settings.null_draws * (1 + DEFAULT_RESAMPLINGS) if has_stability_null(models, settings) else 0)


def has_stability_null(models: StudiedModels, settings: StudySettings) -> bool:
    """Return whether a study resamples surrogates: only for a single model without too many neurons."""
    return len(models) == 1 and settings.null_draws > 0 and len(models.common) <= MOST_RESAMPLED


def compute(models: StudiedModels, settings: StudySettings, told: Told = lambda what, n: None) -> Computation:
    """Cluster every model and the surrogates.

    Parameters
    ----------
    models, settings
        Of the study.
    told
        Called after every task with what is being computed, and the number of clusterings that were added.

    Raises
    ------
    NoClustersError
        If only methods that find the number of clusters are asked for, and each finds none in one of the models.
    """
    found = Computation()
    tasks = [(vectors, *each, settings) for each in settings.configurations for vectors in models.vectors]
    names = models.names * len(settings.configurations)
    outcomes = _run(_clustered, tasks, settings.n_jobs)
    for (_, method, count, _), name, outcome in zip(tasks, names, outcomes, strict=True):
        if isinstance(outcome, str):
            found.failed.setdefault((method, count), f"In the model {name!r}: {outcome}")
        else:
            found.clusterings.setdefault((method, count), []).append(outcome[0])
            found.quality.setdefault((method, count), []).append(outcome[1])
        told(METHODS[method].name if count == FOUND else f"{METHODS[method].name}, K = {count}", 1)
    for configuration in found.failed:
        found.clusterings.pop(configuration, None)
        found.quality.pop(configuration, None)
    if not found.clusterings:
        raise NoClustersError(" ".join(found.failed.values()))
    if settings.null_draws and len(models) > 1:
        found.null = _null(models, settings, found.clusterings, told)
    return found


def _null(
    models: StudiedModels,
    settings: StudySettings,
    clusterings: Mapping[Configuration, Sequence[PostHocClustering]],
    told: Told,
) -> dict[Configuration, Comparison]:
    vectors = models.vectors_of(models.common)
    surrogates = surrogates_of(vectors, method=settings.null_method, seed=settings.seed)
    counts = {method: tuple(count for own, count in clusterings if own == method) for method, _ in clusterings}
    tasks = [
        (surrogates, number, method, own, settings)
        for number in range(settings.null_draws)
        for method, own in counts.items()
    ]
    found: dict[Configuration, list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]] = {}
    for (_, number, method, own, _), drawn in zip(tasks, _run(_drawn, tasks, settings.n_jobs), strict=True):
        for count, values in zip(own, drawn, strict=True):
            found.setdefault((method, count), []).append(values)
        draw = f"surrogates {number + 1} of {settings.null_draws}, {METHODS[method].name}"
        told(draw, len(models) * len(own))
    comparisons = {}
    for configuration, draws in found.items():
        agreements, null_valleys = (np.array(values) for values in zip(*draws, strict=True))
        labels = [
            clusters.labels[models.places(at, models.common)] for at, clusters in enumerate(clusterings[configuration])
        ]
        comparisons[configuration] = Comparison(agreements, null_valleys, valleys_between(vectors, labels))
    return comparisons


def stability_of(
    models: StudiedModels,
    settings: StudySettings,
    labels: npt.NDArray[np.int64],
    *,
    at: int,
    configuration: Configuration,
    n_draws: int,
    null_draws: int,
    told: Told = lambda what, n: None,
) -> tuple[ClusterStability, NullBand | None]:
    """Return how well the clusters of one model are found again in halves of its neurons, and how well surrogates' are.

    Parameters
    ----------
    models, settings
        Of the study.
    labels
        The clusters (n,) of the model.
    at
        Which model.
    configuration
        What clustered it.
    n_draws
        Number of halves.
    null_draws
        Surrogates without clusters, each of which is clustered ``1 + n_draws`` times; 0 for no null.
    told
        As for :func:`compute`.
    """
    vectors = models.vectors[at]
    found = _resampled(vectors, labels, *configuration, n_draws, settings)
    if not null_draws:
        return found, None
    surrogates = surrogates_of([vectors], method=settings.null_method, seed=settings.seed)
    tasks = [(surrogates, number, *configuration, n_draws, settings) for number in range(null_draws)]
    values = []
    for value in _run(_resampled_surrogate, tasks, settings.n_jobs):
        values.append(value)
        told(f"surrogates {len(values)} of {null_draws}, {METHODS[configuration[0]].name}", 1 + n_draws)
    return found, null_band(values, found.overall)


def _clusterer(method: str, count: int, settings: StudySettings) -> Callable[[npt.NDArray[Any]], npt.NDArray[np.int64]]:
    def cluster(vectors: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        return cluster_readouts(vectors, method=method, n_clusters=count, **settings.methods[method]).labels

    return cluster


def _resampled(
    vectors: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    method: str,
    count: int,
    n_draws: int,
    settings: StudySettings,
) -> ClusterStability:
    cluster = _clusterer(method, count, settings)
    with _few_threads(vectors):
        return cluster_stability(vectors, labels, cluster, n_draws=n_draws, share=DEFAULT_SHARE, seed=settings.seed)


def _resampled_surrogate(
    surrogates: list[SurrogateReadouts], number: int, method: str, count: int, n_draws: int, settings: StudySettings
) -> float:
    cluster = _clusterer(method, count, settings)
    with _few_threads(surrogates[0].draw(number).readouts[0]):
        return surrogate_stability(
            surrogates, number, cluster, n_draws=n_draws, share=DEFAULT_SHARE, seed=settings.seed
        )


def _clustered(
    vectors: npt.NDArray[np.float64], method: str, count: int, settings: StudySettings
) -> tuple[PostHocClustering, ClusterQuality] | str:
    """Return a clustering and its quality, or the reason for a missing one."""
    own = settings.methods[method]
    with _few_threads(vectors):
        try:
            clusters = cluster_readouts(vectors, method=method, n_clusters=count, **own)
        except NoClustersError as error:
            return str(error)
        quality = cluster_quality(
            *(vectors, clusters.labels),
            method=method,
            n_clusters=count,
            settings=own,
            log_likelihood=clusters.log_likelihood,
        )
    return clusters, quality


def _drawn(
    surrogates: list[SurrogateReadouts], number: int, method: str, counts: tuple[int, ...], settings: StudySettings
) -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """Return, for every K, agreements of all pairs of models and valleys of all models on surrogates of one number."""
    draws = [kind.draw(number) for kind in surrogates]
    found = []
    for count in counts:
        own = _clusterer(method, count, settings)

        def cluster(vectors: npt.NDArray[Any], _: int, own: Any = own) -> npt.NDArray[np.int64]:
            return np.asarray(own(vectors))

        with _few_threads(draws[0].readouts[0]):
            clusters = clustered_draws(draws, cluster)
        found.append((clusters.agreements, clusters.valleys))
    return found


def _n_clusters(clusters: PostHocClustering) -> int:
    return len(np.unique(clusters.labels[clusters.labels != NO_CLUSTER]))


@contextmanager
def _few_threads(vectors: npt.NDArray[Any]) -> Iterator[None]:
    """Use one thread for small arrays, for which threads would wait for each other after every step."""
    import torch
    from threadpoolctl import threadpool_limits

    if vectors.size >= THREADS_FROM:
        yield
        return
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _run(function: Callable[..., Any], tasks: list[tuple[Any, ...]], n_jobs: int) -> Iterator[Any]:
    """Yield the results of tasks, in their order."""
    if n_jobs == 1:
        yield from (function(*task) for task in tasks)
        return
    from joblib import Parallel, delayed

    yield from Parallel(n_jobs=n_jobs, return_as="generator")(delayed(function)(*task) for task in tasks)
