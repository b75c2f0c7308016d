"""Summaries of configurations over their models, pairs of models and surrogates, as data frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.embeddings.neuron_ids import NeuronIds
from december_plugin.evaluation.confusion import ConfusionMatrix
from december_plugin.evaluation.consensus import Consensus
from december_plugin.evaluation.model_selection import OF_ONE_MODEL
from december_plugin.evaluation.null import null_band
from december_plugin.evaluation.stability import ClusterStability

VALLEY_COLUMNS = ("valleys_mean", "null_valleys_mean", "valleys_p_value")
NULL_COLUMNS = ("null_mean", "null_sd", "null_low", "null_high", "n_draws", "n_pairs", "p_value", *VALLEY_COLUMNS)
ABOVE_NULL = ("above_null_mean", "above_null_sd", "p_value", "n_draws")
QUALITY_COLUMNS = (*(criterion.curve for criterion in OF_ONE_MODEL), "heldout_log_likelihood_se")


def pair_summary(pairs: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Return the agreement of every configuration over its pairs of models.

    Parameters
    ----------
    pairs
        One row per configuration and pair: its key and ``agreement``.
    key
        The columns that make a configuration.

    Returns
    -------
    pandas.DataFrame
        The key, ``agreement_mean``, ``agreement_sd`` (divisor n - 1) and ``n_pairs``.
    """
    groups = pairs.groupby(list(key), sort=False)["agreement"]
    summary = {"agreement_mean": groups.mean(), "agreement_sd": groups.std(), "n_pairs": groups.size()}
    return pd.DataFrame(summary).reset_index()


def quality_summary(models: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Return the criteria for the number of clusters of every configuration over its models.

    Parameters
    ----------
    models
        One row per configuration and model: its key and :data:`QUALITY_COLUMNS`, NaN where there is none.
    key
        The columns that make a configuration.

    Returns
    -------
    pandas.DataFrame
        The key, ``n_models``, mean and standard deviation (divisor n - 1) of every criterion, and the mean of
        ``heldout_log_likelihood_se``.
    """
    groups = models.groupby(list(key), sort=False, dropna=False)
    frame = groups.size().to_frame("n_models")
    *criteria, error = QUALITY_COLUMNS
    for name in criteria:
        frame[f"{name}_mean"], frame[f"{name}_sd"] = groups[name].mean(), groups[name].std()
    frame[error] = groups[error].mean()
    return frame.reset_index()


def null_columns(
    agreements: np.ndarray,
    observed: Sequence[float],
    null_valleys: np.ndarray | None = None,
    valleys: Sequence[float] = (),
) -> dict[str, Any]:
    """Return ``agreement_mean`` and the columns of its null.

    Parameters
    ----------
    agreements
        Of surrogates, (draws, pairs).
    observed
        The agreements of the same pairs.
    null_valleys
        Valleys between clusters of surrogates, (draws, seeds); None: they were not computed, and are NaN.
    valleys
        Those between the real clusters of the same seeds.
    """
    mean = float(np.mean(observed))
    band = null_band(agreements.mean(axis=1), mean)
    return {
        "agreement_mean": mean,
        "null_mean": band.mean,
        "null_sd": band.sd,
        "null_low": band.low,
        "null_high": band.high,
        "n_draws": len(agreements),
        "n_pairs": len(observed),
        "p_value": band.p_value,
        **dict(zip(VALLEY_COLUMNS, _valleys(null_valleys, valleys), strict=True)),
    }


def _valleys(null_valleys: np.ndarray | None, valleys: Sequence[float]) -> tuple[float, float, float]:
    if null_valleys is None:
        return (math.nan,) * 3
    mean = float(np.mean(valleys))
    band = null_band(null_valleys.mean(axis=1), mean)
    return mean, band.mean, band.p_value


def highest_nulls(nulls: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a table of nulls, of several surrogates of one configuration that with the highest null."""
    return nulls.sort_values("null_mean", kind="stable").drop_duplicates(list(key), keep="last")


def above_null_columns(nulls: pd.DataFrame, key: Sequence[str]) -> pd.DataFrame:
    """Return how far the agreement of each configuration is above its null: its key and :data:`ABOVE_NULL`.

    Parameters
    ----------
    nulls
        One row per configuration and kind of surrogates: its key, ``agreement_mean`` and :data:`NULL_COLUMNS`.
    key
        The columns that make a configuration.
    """
    highest = highest_nulls(nulls, key)
    above = (highest["agreement_mean"] - highest["null_mean"]).astype(float)
    found = highest[[*key, "p_value", "n_draws", "null_sd"]].assign(above_null_mean=above)
    return found.rename(columns={"null_sd": "above_null_sd"})


def consensus_neurons(
    partition: Consensus, ids: NeuronIds, *, confidences: np.ndarray, margins: np.ndarray
) -> pd.DataFrame:
    """Return one row per neuron of a consensus.

    Parameters
    ----------
    partition
        The consensus of S models.
    ids
        Its N neurons.
    confidences, margins
        Means over models, (N,).

    Returns
    -------
    pandas.DataFrame
        ``data_key``, ``unit_id``, ``cluster``, ``stability``, ``n_seeds`` (S), ``confidence`` and ``margin``.
    """
    return pd.DataFrame(
        {
            "data_key": ids.data_keys,
            "unit_id": ids.unit_ids,
            "cluster": partition.clusters,
            "stability": partition.stability,
            "n_seeds": len(partition.votes),
            "confidence": confidences,
            "margin": margins,
        }
    )


def confusion_counts(matrix: ConfusionMatrix, **attrs: Any) -> pd.DataFrame:
    """Return the counts by cluster and type, with what is known about them, and ``attrs``, in its ``attrs``."""
    frame = matrix.frame()
    frame.attrs = {
        **attrs,
        "per_type": matrix.per_type(),
        "accuracy": matrix.accuracy,
        "n_unlabelled": matrix.n_unlabelled,
        "n_unassigned": matrix.n_unassigned,
    }
    return frame


def stability_summary(found: ClusterStability, *, n_draws: int, share: float) -> pd.DataFrame:
    """Return how well the clusters of one model are found again in random parts of its neurons.

    Returns
    -------
    pandas.DataFrame
        One row per cluster: ``cluster``, ``n_neurons``, ``jaccard_mean`` and ``jaccard_sd`` over draws. ``attrs`` has
        ``jaccard``, their mean weighted with neurons, ``agreement``, the mean adjusted Rand index between the clusters
        and those of the parts, ``n_draws`` and ``share``.
    """
    columns = {"cluster": found.clusters, "n_neurons": found.sizes}
    frame = pd.DataFrame({**columns, "jaccard_mean": found.mean, "jaccard_sd": found.sd})
    agreement = float(found.agreements.mean())
    frame.attrs = {"jaccard": found.overall, "agreement": agreement, "n_draws": int(n_draws), "share": float(share)}
    return frame
