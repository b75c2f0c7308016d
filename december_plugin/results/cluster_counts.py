"""How many clusters there are, as pandas data frames: the criteria of every configuration, and what they pick.

Restrictions and configurations (dataset, model, trainer and clustering, without the seed) are those of
:mod:`december_plugin.results.agreement`. ``docs/are-there-types.md`` explains how to read them, and their limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from december_plugin.evaluation.model_selection import OF_ONE_MODEL
from december_plugin.findings.cluster_counts import choose_cluster_count as choose_cluster_count
from december_plugin.findings.summaries import ABOVE_NULL, QUALITY_COLUMNS, quality_summary
from december_plugin.results.labels import CONFIGURATION, in_order, labelled_configurations
from december_plugin.results.nulls import above_null
from december_plugin.results.queries import (
    assignments_of,
    configuration_key,
    frame_of,
    seed_agreement_of,
)
from december_plugin.schemas.declare import DecemberTables


def cluster_count_table(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return the criteria for the number of clusters of every configuration, side by side.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments to take.

    Returns
    -------
    pandas.DataFrame
        One row per configuration: ``label``, ``identity``, ``method``, ``n_clusters``, ``trainer_role``;
        ``trainer_settings`` and ``clustering_settings``, without the number of clusters, in words: rows that differ in
        K alone have the same; ``n_models``; agreement between seeds ``agreement_mean``, ``agreement_sd``, ``n_pairs``;
        how far it is above the mean of its null, ``above_null_mean``, with the standard deviation of the draws
        ``above_null_sd``, ``p_value`` and ``n_draws``, of several kinds of surrogates that with the highest null; means
        and standard deviations over models of the held-out log likelihood (nat per neuron), the Bayesian information
        criterion and the silhouette; ``heldout_log_likelihood_se``, the mean over models of the standard error over
        splits; and the configuration's key. What is not computed yet, or has no value, is NaN.

    See Also
    --------
    choose_cluster_count : What the criteria pick.
    null_table : The null of the agreement.
    december_plugin.plots.cluster_count_figure : Draws the criteria.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import cluster_count_table
    >>> lab = open_lab(schema="retina")
    >>> table = cluster_count_table(lab.tables, {"method": "kmeans"})
    >>> table[["label", "n_clusters", "agreement_mean", "above_null_mean", "silhouette_mean"]].round(1)
         label  n_clusters  agreement_mean  above_null_mean  silhouette_mean
    0  k-means           2             0.5              0.4              0.6
    1  k-means           3             0.4              0.3              1.0
    2  k-means           4             0.4              0.2              0.7
    """
    models = assignments_of(tables, restriction)
    key = configuration_key(tables)
    wanted = list(QUALITY_COLUMNS)
    quality = frame_of(tables.ClusterQuality.proj(*wanted))
    models = models.merge(quality, on=[*key, "seed"], how="left")
    models[wanted] = models[wanted].astype(float)
    frame = quality_summary(models, key).merge(
        seed_agreement_of(tables, models, "adjusted_rand_index"), on=key, how="left"
    )
    frame["n_pairs"] = frame["n_pairs"].fillna(0).astype(int)
    frame = frame.merge(above_null(tables, restriction, key), on=key, how="left")
    settings = {
        (row["trainer_fn"], row["trainer_hash"]): _settings_in_words(row["trainer_config"])
        for row in tables.nnfabrik.Trainer().fetch("trainer_fn", "trainer_hash", "trainer_config", as_dict=True)
    }
    clusterings = dict(zip(*tables.Clustering().fetch("clustering_hash", "settings"), strict=True))
    frame["trainer_settings"] = [
        settings.get(pair, "") for pair in zip(frame["trainer_fn"], frame["trainer_hash"], strict=True)
    ]
    frame["clustering_settings"] = [_settings_in_words(clusterings[name]) for name in frame["clustering_hash"]]
    criteria = [f"{criterion.curve}_{part}" for criterion in OF_ONE_MODEL for part in ("mean", "sd")]
    first = [*CONFIGURATION, "trainer_settings", "clustering_settings", "n_models"]
    agreement = ["agreement_mean", "agreement_sd", "n_pairs", *ABOVE_NULL]
    order = [*first, *agreement, *criteria, "heldout_log_likelihood_se", *key]
    return in_order(frame.merge(labelled_configurations(tables, models), on=key, how="left"))[order]


def _settings_in_words(config: Any) -> str:
    if not isinstance(config, Mapping):
        return ""
    return ", ".join(f"{name}={config[name]}" for name in sorted(config) if name != "n_clusters")
