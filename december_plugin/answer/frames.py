"""The frames of a study, from what was computed; as :mod:`december_plugin.results` returns them from tables."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.answer.computation import KEY, Computation
from december_plugin.answer.models import StudiedModels
from december_plugin.answer.neurons import KnownNeurons
from december_plugin.answer.settings import StudySettings
from december_plugin.clustering.methods import METHODS
from december_plugin.clustering.post_hoc import cluster_readouts
from december_plugin.evaluation.agreement import agreement_with_types
from december_plugin.evaluation.cluster_tree import ClusterTree, cluster_tree
from december_plugin.evaluation.confusion import confusion_matrix
from december_plugin.evaluation.consensus import Consensus, consensus_clusters, consensus_partition
from december_plugin.evaluation.methods import Method
from december_plugin.evaluation.similarity import SIMILARITIES, compare_embeddings
from december_plugin.evaluation.stability import DEFAULT_RESAMPLINGS, DEFAULT_SHARE, cluster_stability
from december_plugin.findings.summaries import (
    NULL_COLUMNS,
    above_null_columns,
    confusion_counts,
    consensus_neurons,
    null_columns,
    pair_summary,
    quality_summary,
    stability_summary,
)

DESCRIBED = ("label", "identity", *KEY)


class StudyFrames:
    """Makes the frames of a study.

    Parameters
    ----------
    models, settings, computation, known
        Of the study.
    """

    def __init__(
        self, models: StudiedModels, settings: StudySettings, computation: Computation, known: KnownNeurons
    ) -> None:
        self.models, self.settings, self.computation, self.known = models, settings, computation, known
        self.pairs = computation.pairs(models.names)
        self.clusterings = computation.models(models.names)
        self._resampled_once: dict[tuple[str, int], pd.DataFrame] = {}

    def agreement(self) -> pd.DataFrame:
        """Return agreement, with types too, and test correlation of every configuration."""
        frame = self._configurations().assign(n_models=len(self.models), n_left_out=0.0)
        frame = frame.merge(self._pair_summary(), on=list(KEY), how="left")
        frame["n_pairs"] = frame["n_pairs"].fillna(0).astype(int)
        types = [self._types_agreement(method, count) for method, count in self._keys(frame)]
        frame[["types_agreement_mean", "types_agreement_sd"]] = np.array(types, dtype=np.float64)
        frame["test_correlation_mean"], frame["test_correlation_sd"] = _mean_sd(self.known.model_correlations())
        return frame

    def nulls(self) -> pd.DataFrame:
        """Return the agreement beside its null; no rows without one."""
        rows = []
        for (method, count), agreements in self.computation.null.items():
            own = self.pairs[(self.pairs["method"] == method) & (self.pairs["n_clusters"] == count)]
            row = null_columns(agreements, own["adjusted_rand_index"].tolist())
            rows.append({"method": method, "n_clusters": count, "surrogate_name": self.settings.null_method, **row})
        columns = [*KEY, "surrogate_name", "agreement_mean", *NULL_COLUMNS]
        frame = pd.DataFrame(rows, columns=columns)
        return self._configurations().merge(frame, on=list(KEY))

    def counts(self, nulls: pd.DataFrame) -> pd.DataFrame:
        """Return the criteria for the number of clusters."""
        frame = self._configurations()
        frame["clustering_settings"] = [self.settings.in_words(method) for method in frame["method"]]
        frame = frame.merge(quality_summary(self.clusterings, KEY), on=list(KEY))
        frame = frame.merge(self._pair_summary(), on=list(KEY), how="left")
        frame["n_pairs"] = frame["n_pairs"].fillna(0).astype(int)
        return frame.merge(above_null_columns(nulls, KEY), on=list(KEY), how="left")

    def similarity(self) -> pd.DataFrame:
        """Return how similar the embeddings of every pair of models are; no rows of a single model."""
        rows = []
        for (name_a, a), (name_b, b) in itertools.combinations(
            zip(self.models.names, self.models.vectors, strict=True), 2
        ):
            found = compare_embeddings(a, b, seed=self.settings.seed)
            rows.append({"model_a": name_a, "model_b": name_b, **{name: getattr(found, name) for name in SIMILARITIES}})
        return pd.DataFrame(rows, columns=["model_a", "model_b", *SIMILARITIES])

    def consensus(self) -> pd.DataFrame:
        """Return how much the models of every configuration share; no rows of a single model."""
        rows = []
        for method, count in self._keys(self._configurations()) if len(self.models) > 1 else ():
            partition = self.partition(method, count)
            row: dict[str, Any] = {"n_seeds": len(self.models), "n_neurons": self.models.n_neurons}
            row["n_clusters_found"] = len(consensus_clusters(partition))
            row["mean_stability"] = float(partition.stability.mean())
            row["core_fraction"] = partition.unanimous_fraction
            rows.append({"method": method, "n_clusters": count, **row})
        columns = [*KEY, "n_seeds", "n_neurons", "n_clusters_found", "mean_stability", "core_fraction"]
        return self._configurations().merge(pd.DataFrame(rows, columns=columns), on=list(KEY))

    def neurons(self, method: str, n_clusters: int) -> pd.DataFrame:
        """Return one row per neuron with its cluster: of the consensus, or of the only model."""
        found = self.computation.clusterings[method, n_clusters]
        confidences, margins = (
            np.mean([getattr(each, name) for each in found], axis=0) for name in ("confidences", "margins")
        )
        ids = self.models.ids
        if len(found) > 1:
            frame = consensus_neurons(self.partition(method, n_clusters), ids, confidences=confidences, margins=margins)
        else:
            frame = pd.DataFrame({"data_key": ids.data_keys, "unit_id": ids.unit_ids, "cluster": found[0].labels})
            frame = frame.assign(stability=np.nan, n_seeds=1, confidence=confidences, margin=margins)
        return frame.merge(self.known.frame(ids), on=["data_key", "unit_id"], how="left")

    def partition(self, method: str, n_clusters: int) -> Consensus:
        """Return the partition that the models of a configuration share."""
        return consensus_partition([each.labels for each in self.computation.clusterings[method, n_clusters]])

    def stability(self, method: str, n_clusters: int, *, n_draws: int) -> pd.DataFrame:
        """Return how well the clusters of every model are found again in random halves of its neurons.

        Returns
        -------
        pandas.DataFrame
            One row per model and cluster: ``model``, ``cluster``, ``n_neurons``, ``jaccard_mean``, ``jaccard_sd``.
        """
        parts = [
            self._resampled(method, n_clusters, at, n_draws).assign(model=name)
            for at, name in enumerate(self.models.names)
        ]
        frame = pd.concat(parts, ignore_index=True)
        return frame[["model", "cluster", "n_neurons", "jaccard_mean", "jaccard_sd"]]

    def resampled(self, method: str, n_clusters: int) -> pd.DataFrame:
        """Return the stability of the only model's clusters, as reports have it; computed once."""
        key = method, n_clusters
        if key not in self._resampled_once:
            self._resampled_once[key] = self._resampled(method, n_clusters, 0, DEFAULT_RESAMPLINGS)
        return self._resampled_once[key]

    def tree(self, method: str) -> ClusterTree | None:
        """Return how the clusters of a method split as their number grows; None for fewer than two K."""
        counts = self.settings.n_clusters
        if len(counts) < 2:
            return None
        if len(self.models) > 1:
            return cluster_tree({count: self.partition(method, count).clusters for count in counts})
        return cluster_tree({count: self.computation.clusterings[method, count][0].labels for count in counts})

    def _resampled(self, method: str, n_clusters: int, at: int, n_draws: int) -> pd.DataFrame:
        settings = self.settings.methods[method]

        def cluster(vectors: np.ndarray) -> np.ndarray:
            return cluster_readouts(vectors, method=method, n_clusters=n_clusters, **settings).labels

        labels = self.computation.clusterings[method, n_clusters][at].labels
        found = cluster_stability(
            self.models.vectors[at], labels, cluster, n_draws=n_draws, share=DEFAULT_SHARE, seed=self.settings.seed
        )
        return stability_summary(found, n_draws=n_draws, share=DEFAULT_SHARE)

    def confusion(self, method: str, n_clusters: int) -> pd.DataFrame:
        """Return the clusters of a configuration against the known types."""
        labels, reference = self.computation.clusterings[method, n_clusters][0].labels, 0
        if len(self.models) > 1:
            partition = self.partition(method, n_clusters)
            labels, reference = partition.clusters, partition.reference
        return confusion_counts(
            confusion_matrix(labels, self.known.types),
            n_seeds=len(self.models),
            reference_seed=self.models.names[reference],
            types_name=self.known.types_name,
        )

    def _configurations(self) -> pd.DataFrame:
        """Return one row per configuration, by number of clusters, methods in the order in which they were given."""
        rows = [
            {"label": METHODS[method].name, "identity": Method(method), "method": method, "n_clusters": count}
            for count in self.settings.n_clusters
            for method in self.settings.methods
        ]
        return pd.DataFrame(rows, columns=list(DESCRIBED))

    def _pair_summary(self) -> pd.DataFrame:
        if self.pairs.empty:
            return pd.DataFrame(columns=[*KEY, "agreement_mean", "agreement_sd", "n_pairs"]).astype(
                {"method": object, "n_clusters": int, "agreement_mean": float, "agreement_sd": float, "n_pairs": float}
            )
        return pair_summary(self.pairs.rename(columns={"adjusted_rand_index": "agreement"}), KEY)

    def _types_agreement(self, method: str, count: int) -> tuple[float, float]:
        if self.known.types is None:
            return np.nan, np.nan
        found = self.computation.clusterings[method, count]
        agreements = [agreement_with_types(each.labels, self.known.types).agreement for each in found]
        return _mean_sd(np.array([each.adjusted_rand_index for each in agreements]))

    def _keys(self, frame: pd.DataFrame) -> list[tuple[str, int]]:
        return list(zip(frame["method"], frame["n_clusters"], strict=True))


def _mean_sd(values: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation (divisor n - 1; NaN of a single value); both NaN without any value."""
    return float(values.mean()) if len(values) else np.nan, float(values.std(ddof=1)) if len(values) > 1 else np.nan
