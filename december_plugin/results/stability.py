"""How stable the clusters of one stored model are when its neurons are resampled, as a data frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.evaluation.stability import DEFAULT_RESAMPLINGS, DEFAULT_SHARE, cluster_stability
from december_plugin.findings.summaries import stability_summary
from december_plugin.results.queries import one_assignment
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.stored_labels import assigned_labels
from december_plugin.schemas.stored_models import clustering_recipe, full_config, in_session_order


def stability_frame(
    tables: DecemberTables,
    restriction: Any,
    *,
    n_draws: int = DEFAULT_RESAMPLINGS,
    share: float = DEFAULT_SHARE,
    seed: int = 0,
) -> pd.DataFrame:
    """Return how well the clusters of one assignment are found again in random parts of its neurons.

    It needs no second seed, but the store, and clusters ``n_draws`` times. Of DECEMber it is its clustering part, as in
    the null: the mixture, started by k-means, on the vectors as the training left them.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Leaves one assignment.
    n_draws, share, seed
        See :func:`~december_plugin.evaluation.stability.cluster_stability`.

    Returns
    -------
    pandas.DataFrame
        One row per cluster: ``cluster``, ``n_neurons``, ``jaccard_mean`` and ``jaccard_sd`` over draws: from 0.75 on a
        cluster is stable, below 0.5 it dissolves (Hennig 2007). ``attrs`` has ``jaccard``, their mean weighted with
        neurons, ``agreement``, the mean adjusted Rand index between the clusters and those of the parts, ``n_draws``
        and ``share``.

    Raises
    ------
    SettingsError
        If the restriction leaves none or several assignments, a setting is not allowed, or a part has fewer neurons
        than there are clusters.
    """
    from december_plugin.clustering.post_hoc import cluster_readouts

    key = one_assignment(tables, restriction)
    method, settings = (tables.Clustering & key).fetch1("method", "settings")
    n_clusters = (tables.ClusterAssignment & key).fetch1("n_clusters_used")
    output = (tables.TrainedModel & key).fetch1("output")
    mixture = output.get("mixture") if isinstance(output, Mapping) else None
    recipe = clustering_recipe(method, n_clusters, settings, mixture=mixture, seed=int(key["seed"]))
    data_keys = (tables.ClusterAssignment.Session & key).fetch("data_key", order_by="data_key")
    embeddings = tables.vectors.of(key, full_config(tables.nnfabrik, key, trainer=False))
    vectors = in_session_order(embeddings, [str(name) for name in data_keys])

    def cluster(part: np.ndarray) -> np.ndarray:
        return cluster_readouts(part, **recipe).labels

    labels = assigned_labels(tables.ClusterAssignment, key).labels
    found = cluster_stability(vectors, labels, cluster, n_draws=n_draws, share=share, seed=seed)
    return stability_summary(found, n_draws=n_draws, share=share)
