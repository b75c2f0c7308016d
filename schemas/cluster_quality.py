"""Criteria for the number of clusters of one model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import datajoint as dj

from december_plugin.schemas.clustering_vectors import ClusteringVectors
from december_plugin.schemas.serialization import decode_blob, encode_blob
from december_plugin.schemas.stored_labels import assigned_labels
from december_plugin.schemas.stored_models import clustering_recipe, full_config, in_session_order


class ClusterQuality(dj.Computed):
    """Criteria for how well a number of clusters fits the vectors of one model, in the space of the clustering.

    For DECEMber, whose mixture was trained with the model, the mixture is fitted again to a part of the neurons, on
    the readouts as the training left them, to score the others. Likelihoods are densities in units of the space, so
    those of different spaces cannot be compared.
    """

    trained_model_table: ClassVar[Any]
    clustering_table: ClassVar[Any]
    vectors: ClassVar[ClusteringVectors]
    cluster_assignment_table: ClassVar[Any]
    nnfabrik: ClassVar[Any]

    definition = """
    # Criteria for the number of clusters
    -> ClusterAssignment
    ---
    heldout_log_likelihood=null: double     # mean over splits, per held-out neuron (nat); null without a likelihood
    heldout_log_likelihood_se=null: double  # standard error of that mean, over splits (nat)
    n_splits: int unsigned                  # number of random splits, one third of the neurons held out in each
    bic=null: double                        # Bayesian information criterion of the assignment's fit (smaller = better)
    silhouette=null: double                 # mean silhouette, Euclidean (-1 to 1); null for a single cluster
    """

    @property
    def key_source(self) -> Any:
        """All assignments."""
        return self.cluster_assignment_table.proj()

    def make_fetch(self, key: dict[str, Any]) -> tuple[str]:
        """Return, packed, clustering, log likelihood, mixture and configurations."""
        method, settings = (self.clustering_table & key).fetch1("method", "settings")
        log_likelihood, n_clusters = (self.cluster_assignment_table & key).fetch1("log_likelihood", "n_clusters_used")
        output = (self.trained_model_table & key).fetch1("output")
        mixture = output.get("mixture") if isinstance(output, Mapping) else None
        fetched = {
            "recipe": clustering_recipe(method, n_clusters, settings, mixture=mixture, seed=int(key["seed"])),
            "log_likelihood": log_likelihood,
            "config": full_config(self.nnfabrik, key, trainer=False),
            "data_keys": list((self.cluster_assignment_table.Session & key).fetch("data_key", order_by="data_key")),
        }
        return (encode_blob(fetched),)

    def make_compute(self, key: dict[str, Any], fetched: str) -> tuple[dict[str, Any]]:
        """Return the criteria."""
        from december_plugin.evaluation.model_selection import cluster_quality

        inputs = decode_blob(fetched)
        embeddings = self.vectors.of(key, inputs["config"])
        recipe = dict(inputs["recipe"])
        found = cluster_quality(
            in_session_order(embeddings, inputs["data_keys"]),
            assigned_labels(self.cluster_assignment_table, key).labels,
            method=recipe.pop("method"),
            n_clusters=recipe.pop("n_clusters"),
            settings=recipe,
            log_likelihood=inputs["log_likelihood"],
        )
        return ({name: value if math.isfinite(value) else None for name, value in vars(found).items()},)

    def make_insert(self, key: dict[str, Any], row: dict[str, Any]) -> None:
        """Insert the entry."""
        self.insert1({**key, **row})
