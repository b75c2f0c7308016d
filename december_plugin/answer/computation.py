"""What a study computes: every clustering of every model, how models agree, and how they agree on surrogates.

The work is cut into tasks that do not depend on each other, each with its own seed: their number of processes changes
nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from december_plugin.answer.models import StudiedModels
from december_plugin.answer.settings import StudySettings
from december_plugin.clustering.methods import METHODS
from december_plugin.clustering.post_hoc import PostHocClustering, cluster_readouts
from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.evaluation.agreement import compare_partitions
from december_plugin.evaluation.model_selection import ClusterQuality, cluster_quality
from december_plugin.evaluation.null import SurrogateReadouts, agreement_of_draws, surrogates_of

# What makes a configuration.
KEY = ("method", "n_clusters")
THREADS_FROM = 1 << 20  # numbers in the vectors of a model

Configuration = tuple[str, int]
Told = Callable[[str, int], None]


@dataclass(eq=False)
class Computation:
    """What was computed.

    Attributes
    ----------
    clusterings
        Method and K to the clustering of every model.
    quality
        Method and K to the criteria of every model.
    null
        Method and K to the adjusted Rand indices on surrogates, (draws, pairs of models), pairs as
        ``itertools.combinations``; empty without a null.
    """

    clusterings: dict[Configuration, list[PostHocClustering]] = field(default_factory=dict)
    quality: dict[Configuration, list[ClusterQuality]] = field(default_factory=dict)
    null: dict[Configuration, npt.NDArray[np.float64]] = field(default_factory=dict)

    def pairs(self, names: tuple[str, ...]) -> pd.DataFrame:
        """Return one row per configuration and pair of models: all measures of their agreement."""
        rows = []
        for (method, count), found in self.clusterings.items():
            for (name_a, a), (name_b, b) in itertools.combinations(zip(names, found, strict=True), 2):
                described = {"method": method, "n_clusters": count, "model_a": name_a, "model_b": name_b}
                rows.append({**described, **asdict(compare_partitions(a.labels, b.labels, no_cluster=NO_CLUSTER))})
        return pd.DataFrame(rows)

    def models(self, names: tuple[str, ...]) -> pd.DataFrame:
        """Return one row per configuration and model: what came out of the clustering, and the criteria for K."""
        rows = []
        for (method, count), found in self.clusterings.items():
            for name, clusters, quality in zip(names, found, self.quality[method, count], strict=True):
                described = {"method": method, "n_clusters": count, "model": name}
                described["n_clusters_found"] = len(np.unique(clusters.labels))
                described["mean_confidence"] = float(clusters.confidences.mean())
                described["log_likelihood"] = np.nan if clusters.log_likelihood is None else clusters.log_likelihood
                described["converged"] = clusters.converged
                rows.append({**described, **asdict(quality)})
        return pd.DataFrame(rows)


def n_clusterings(models: StudiedModels, settings: StudySettings) -> int:
    """Return how many clusterings a study takes, those of surrogates included."""
    n_draws = settings.null_draws if len(models) > 1 else 0
    return len(models) * len(settings.methods) * len(settings.n_clusters) * (1 + n_draws)


def compute(models: StudiedModels, settings: StudySettings, told: Told = lambda what, n: None) -> Computation:
    """Cluster every model and the surrogates.

    Parameters
    ----------
    models, settings
        Of the study.
    told
        Is told after every task: what is being computed, and how many clusterings have been added.
    """
    found = Computation()
    configurations = list(itertools.product(settings.methods, settings.n_clusters))
    tasks = [(vectors, *each, settings) for each in configurations for vectors in models.vectors]
    for (_, method, count, _), (clusters, quality) in zip(tasks, _run(_clustered, tasks, settings.n_jobs), strict=True):
        found.clusterings.setdefault((method, count), []).append(clusters)
        found.quality.setdefault((method, count), []).append(quality)
        told(f"{METHODS[method].name}, K = {count}", 1)
    if settings.null_draws and len(models) > 1:
        found.null = _null(models, settings, told)
    return found


def _null(models: StudiedModels, settings: StudySettings, told: Told) -> dict[Configuration, npt.NDArray[np.float64]]:
    surrogates = surrogates_of(models.vectors, method=settings.null_method, seed=settings.seed)
    tasks = [
        (surrogates, number, method, settings) for number in range(settings.null_draws) for method in settings.methods
    ]
    found: dict[Configuration, list[npt.NDArray[np.float64]]] = {}
    for (_, number, method, _), agreements in zip(tasks, _run(_drawn, tasks, settings.n_jobs), strict=True):
        for count, values in zip(settings.n_clusters, agreements, strict=True):
            found.setdefault((method, count), []).append(values)
        draw = f"surrogates {number + 1} of {settings.null_draws}, {METHODS[method].name}"
        told(draw, len(models) * len(settings.n_clusters))
    return {configuration: np.array(values) for configuration, values in found.items()}


def _clustered(
    vectors: npt.NDArray[np.float64], method: str, count: int, settings: StudySettings
) -> tuple[PostHocClustering, ClusterQuality]:
    own = settings.methods[method]
    with _few_threads(vectors):
        clusters = cluster_readouts(vectors, method=method, n_clusters=count, **own)
        quality = cluster_quality(
            *(vectors, clusters.labels),
            method=method,
            n_clusters=count,
            settings=own,
            log_likelihood=clusters.log_likelihood,
        )
    return clusters, quality


def _drawn(
    surrogates: list[SurrogateReadouts], number: int, method: str, settings: StudySettings
) -> list[npt.NDArray[np.float64]]:
    """Return, for every K, the adjusted Rand index of every pair of models on the surrogates of one number."""
    draws = [kind.draw(number) for kind in surrogates]
    found = []
    for count in settings.n_clusters:

        def cluster(vectors: npt.NDArray[Any], _: int, count: int = count) -> npt.NDArray[np.int64]:
            return cluster_readouts(vectors, method=method, n_clusters=count, **settings.methods[method]).labels

        with _few_threads(draws[0].readouts[0]):
            found.append(agreement_of_draws(draws, cluster)[0])
    return found


@contextmanager
def _few_threads(vectors: npt.NDArray[Any]) -> Iterator[None]:
    """Compute with one thread where there are few numbers: threads would wait for each other after every small step."""
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
