"""The frames of a study, like those that :mod:`december_plugin.results` returns from tables."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.answer.computation import KEY, Computation, Told, stability_of
from december_plugin.answer.models import StudiedModels
from december_plugin.answer.neurons import KnownNeurons
from december_plugin.answer.settings import StudySettings
from december_plugin.clustering.methods import FOUND
from december_plugin.clustering.post_hoc import PostHocClustering
from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.evaluation.agreement import agreement_with_types
from december_plugin.evaluation.cluster_tree import ClusterTree, cluster_tree
from december_plugin.evaluation.confusion import confusion_matrix
from december_plugin.evaluation.consensus import Consensus, consensus_clusters, consensus_partition
from december_plugin.evaluation.methods import Method
from december_plugin.evaluation.similarity import SIMILARITIES, compare_embeddings
from december_plugin.evaluation.stability import DEFAULT_RESAMPLINGS, DEFAULT_SHARE
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
        self.pairs = computation.pairs(models)
        self.clusterings = computation.models(models)
        self._resampled_once: dict[tuple[str, int], pd.DataFrame] = {}

    def agreement(self) -> pd.DataFrame:
        """Return agreement, with types too, and test correlation of every configuration."""
        left_out = float(self.models.n_left_out.mean())
        frame = self._configurations().assign(n_models=len(self.models), n_left_out=left_out)
        frame = frame.merge(self._pair_summary(), on=list(KEY), how="left")
        frame["n_pairs"] = frame["n_pairs"].fillna(0).astype(int)
        types = [self._types_agreement(method, count) for method, count in self._keys(frame)]
        frame[["types_agreement_mean", "types_agreement_sd"]] = np.array(types, dtype=np.float64)
        frame["test_correlation_mean"], frame["test_correlation_sd"] = _mean_sd(self.known.model_correlations())
        return frame

    def nulls(self) -> pd.DataFrame:
        """Return the agreement and its null; no rows without a null."""
        rows = []
        for (method, given), null in self.computation.null.items():
            count = self.computation.count_of(method, given)
            own = self.pairs[(self.pairs["method"] == method) & (self.pairs["n_clusters"] == count)]
            observed = own["adjusted_rand_index"].tolist()
            row = null_columns(null.agreements, observed, null.null_valleys, null.valleys.tolist())
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
        """Return how similar the embeddings of every pair of models are; no rows for a single model."""
        rows = []
        names, vectors = self.models.names, self.models.vectors
        for a, b in itertools.combinations(range(len(self.models)), 2):
            both = self.models.shared(a, b)
            found = compare_embeddings(
                *(vectors[at][self.models.places(at, both)] for at in (a, b)), seed=self.settings.seed
            )
            described = {"model_a": names[a], "model_b": names[b]}
            rows.append({**described, **{name: getattr(found, name) for name in SIMILARITIES}})
        return pd.DataFrame(rows, columns=["model_a", "model_b", *SIMILARITIES])

    def consensus(self) -> pd.DataFrame:
        """Return how much the models of every configuration share; no rows for a single model."""
        rows = []
        for method, count in self._keys(self._configurations()) if len(self.models) > 1 else ():
            partition = self.partition(method, count)
            row: dict[str, Any] = {"n_seeds": len(self.models), "n_neurons": len(self.models.common)}
            row["n_clusters_found"] = len(consensus_clusters(partition))
            row["mean_stability"] = float(partition.stability.mean())
            row["core_fraction"] = partition.unanimous_fraction
            rows.append({"method": method, "n_clusters": count, **row})
        columns = [*KEY, "n_seeds", "n_neurons", "n_clusters_found", "mean_stability", "core_fraction"]
        return self._configurations().merge(pd.DataFrame(rows, columns=columns), on=list(KEY))

    def neurons(self, method: str, n_clusters: int) -> pd.DataFrame:
        """Return one row per neuron of all models with its cluster: of the consensus, or of the only model."""
        found = self.clusterings_of(method, n_clusters)
        confidences, margins = (
            np.mean(self._of_common([getattr(each, name) for each in found]), axis=0)
            for name in ("confidences", "margins")
        )
        ids = self.models.ids.take(self.models.common)
        if len(found) > 1:
            frame = consensus_neurons(self.partition(method, n_clusters), ids, confidences=confidences, margins=margins)
        else:
            frame = pd.DataFrame({"data_key": ids.data_keys, "unit_id": ids.unit_ids, "cluster": found[0].labels})
            frame = frame.assign(stability=np.nan, n_seeds=1, confidence=confidences, margin=margins)
        return frame.merge(self.known.frame(self.models.ids), on=["data_key", "unit_id"], how="left")

    def partition(self, method: str, n_clusters: int) -> Consensus:
        """Return the partition that the models of a configuration share, of the neurons that all of them have."""
        return consensus_partition(self._of_common([each.labels for each in self.clusterings_of(method, n_clusters)]))

    def clusterings_of(self, method: str, n_clusters: int) -> list[PostHocClustering]:
        """Return the clustering of every model; ``n_clusters`` is ignored if the method finds it."""
        return self.computation.clusterings[self._configuration(method, n_clusters)]

    def labels(self, method: str, n_clusters: int) -> pd.DataFrame:
        """Return the cluster of every neuron (rows) in every model (columns), missing where the model leaves it out."""
        index = self.models.ids.index.set_names(["data_key", "unit_id"])
        columns = {
            name: pd.Series(each.labels, index=index[rows])
            for name, rows, each in zip(
                self.models.names, self.models.rows, self.clusterings_of(method, n_clusters), strict=True
            )
        }
        if not self.models.n_left_out.any():
            return pd.DataFrame(columns, index=index)
        return pd.DataFrame(columns, index=index).dropna(how="all").astype("Int64")

    def stability(self, method: str, n_clusters: int, *, n_draws: int, null_draws: int) -> pd.DataFrame:
        """Return how well the clusters of every model are found again in random halves of its neurons.

        Returns
        -------
        pandas.DataFrame
            One row per model and cluster: ``model``, ``cluster``, ``n_neurons``, ``jaccard_mean``, ``jaccard_sd``; with
            ``null_draws`` of the model's mean also ``jaccard``, ``null_mean`` and ``p_value``.
        """
        parts = []
        of_model = ["jaccard", "null_mean", "p_value"] if null_draws else []
        for at, name in enumerate(self.models.names):
            part = self._resampled(method, n_clusters, at, n_draws=n_draws, null_draws=null_draws)
            parts.append(part.assign(model=name, **{column: part.attrs[column] for column in of_model}))
        frame = pd.concat(parts, ignore_index=True)
        return frame[["model", "cluster", "n_neurons", "jaccard_mean", "jaccard_sd", *of_model]]

    def resampled(self, method: str, n_clusters: int, told: Told = lambda what, n: None) -> pd.DataFrame:
        """Return the stability of the only model's clusters, as reports have it, with its null; computed once."""
        key = method, n_clusters
        if key not in self._resampled_once:
            self._resampled_once[key] = self._resampled(
                *(method, n_clusters, 0),
                n_draws=DEFAULT_RESAMPLINGS,
                null_draws=self.settings.null_draws,
                told=told,
            )
        return self._resampled_once[key]

    def tree(self, method: str) -> ClusterTree | None:
        """Return how the clusters of a method split as their number grows; None for fewer than two K."""
        counts = self.settings.counts_of(method)
        if len(counts) < 2:
            return None
        if len(self.models) > 1:
            return cluster_tree({count: self.partition(method, count).clusters for count in counts})
        return cluster_tree({count: self.clusterings_of(method, count)[0].labels for count in counts})

    def _resampled(
        self,
        method: str,
        n_clusters: int,
        at: int,
        *,
        n_draws: int,
        null_draws: int,
        told: Told = lambda what, n: None,
    ) -> pd.DataFrame:
        found, null = stability_of(
            self.models,
            self.settings,
            self.clusterings_of(method, n_clusters)[at].labels,
            at=at,
            configuration=self._configuration(method, n_clusters),
            n_draws=n_draws,
            null_draws=null_draws,
            told=told,
        )
        frame = stability_summary(found, n_draws=n_draws, share=DEFAULT_SHARE)
        if null is not None:
            frame.attrs |= {"null_mean": null.mean, "p_value": null.p_value, "n_surrogates": null_draws}
        return frame

    def _configuration(self, method: str, n_clusters: int) -> tuple[str, int]:
        return method, FOUND if self.settings.finds_count(method) else n_clusters

    def _of_common(self, values: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return values of every model's neurons (n,) for the neurons that all models have."""
        common = self.models.common
        return [own[self.models.places(at, common)] for at, own in enumerate(values)]

    def confusion(self, method: str, n_clusters: int) -> pd.DataFrame:
        """Return the clusters of a configuration against the known types."""
        labels, reference = self.clusterings_of(method, n_clusters)[0].labels, 0
        if len(self.models) > 1:
            partition = self.partition(method, n_clusters)
            labels, reference = partition.clusters, partition.reference
        types = None if self.known.types is None else self.known.types[self.models.common]
        return confusion_counts(
            confusion_matrix(labels, types, no_cluster=NO_CLUSTER),
            n_seeds=len(self.models),
            reference_seed=self.models.names[reference],
            types_name=self.known.types_name,
        )

    def _configurations(self) -> pd.DataFrame:
        """Return one row per configuration, by number of clusters, methods in the order in which they were given."""
        rows = []
        for method, given in self.computation.clusterings:
            finds_count = self.settings.finds_count(method)
            identity = Method(method, neurons=self.settings.neurons, finds_count=finds_count)
            count = self.computation.count_of(method, given)
            rows.append({"label": identity.name, "identity": identity, "method": method, "n_clusters": count})
        return pd.DataFrame(rows, columns=list(DESCRIBED)).sort_values("n_clusters", kind="stable", ignore_index=True)

    def _pair_summary(self) -> pd.DataFrame:
        if self.pairs.empty:
            return pd.DataFrame(columns=[*KEY, "agreement_mean", "agreement_sd", "n_pairs"]).astype(
                {"method": object, "n_clusters": int, "agreement_mean": float, "agreement_sd": float, "n_pairs": float}
            )
        return pair_summary(self.pairs.rename(columns={"adjusted_rand_index": "agreement"}), KEY)

    def _types_agreement(self, method: str, count: int) -> tuple[float, float]:
        if self.known.types is None:
            return np.nan, np.nan
        agreements = []
        for rows, each in zip(self.models.rows, self.clusterings_of(method, count), strict=True):
            types = self.known.types[rows]
            if any(name is not None for name in types):
                found = agreement_with_types(each.labels, types, no_cluster=NO_CLUSTER)
                agreements.append(found.agreement.adjusted_rand_index)
        return _mean_sd(np.array(agreements))

    def _keys(self, frame: pd.DataFrame) -> list[tuple[str, int]]:
        return list(zip(frame["method"], frame["n_clusters"], strict=True))


def _mean_sd(values: np.ndarray) -> tuple[float, float]:
    """Return mean and standard deviation (divisor n - 1; NaN of a single value); both NaN without any value."""
    return float(values.mean()) if len(values) else np.nan, float(values.std(ddof=1)) if len(values) > 1 else np.nan
