"""Chooses what is shown where there is room for one: a configuration's clusters, a clustering's comparison."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from december_plugin.clustering.methods import filter_of_column
from december_plugin.embeddings.space import READOUT_SPACE, EmbeddingSpace
from december_plugin.errors import SettingsError
from december_plugin.evaluation.methods import NAMES, with_count
from december_plugin.findings.verdict import agreed_counts

OWN_SPACES = "each in its own space"


def chosen_row(
    agreement: pd.DataFrame, *, n_clusters: int | None, n_types: int | None, choices: pd.DataFrame
) -> pd.Series:
    """Return the configuration whose clusters are shown, with ``reason``: DECEMber's gentlest, if there is one.

    Without DECEMber, it is one of aligned vectors if possible, and never one of permuted features. The number of
    clusters is the requested one, else that of the known types, else the one that criteria agree on, else the middle
    one.
    """
    agreement = _without_permuted(agreement)
    is_december = agreement["method"] == "december"
    is_aligned = np.array([method.alignment is not None for method in agreement["identity"]], dtype=bool)
    # Clusters of vectors as they are would reflect orientations as much as types.
    preferred = is_december.to_numpy() if is_december.any() else is_aligned
    rows = agreement[preferred] if preferred.any() else agreement
    counts = sorted(set(rows["n_clusters"]))
    agreed = agreed_counts(choices)
    if n_clusters is not None:
        if n_clusters not in counts:
            rows, counts = agreement, sorted(set(agreement["n_clusters"]))
        if n_clusters not in counts:
            listed = ", ".join(map(str, counts))
            raise SettingsError(f"there are no assignments with {n_clusters} clusters. Available: {listed}.")
        count, why = n_clusters, "as asked for"
    elif n_types is not None and n_types in counts:
        count, why = n_types, "the number of known types"
    elif agreed is not None and agreed[0] in counts:
        count, why = int(agreed[0]), "on which criteria agree"
    else:
        count = int(counts[len(counts) // 2])
        why = f"the middle one of {', '.join(map(str, counts))}" if len(counts) > 1 else "the only one"
    rows = rows[rows["n_clusters"] == count]
    row = rows.loc[rows["gradient_ratio"].fillna(np.inf).idxmin()].copy()
    gentlest = " with the gentlest clustering loss" if is_december.any() and len(rows) > 1 else ""
    named = row["label"]
    if row["identity"].finds_count:
        named = with_count(named, count, is_found=True, n_models=int(row["n_models"]))
    row["reason"] = f"K = {count}, {why}; {named}{gentlest}"
    return row


def _without_permuted(agreement: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose features were not permuted; all rows if there are no such rows."""
    kept = agreement[[not method.is_permuted for method in agreement["identity"]]]
    return kept if len(kept) else agreement


def space_in_words(space: Any, normalize: Any) -> str:
    """Return the space in which two configurations are compared, in words; None for two different ones."""
    return OWN_SPACES if pd.isna(space) else EmbeddingSpace(space=space, normalize=normalize).phrase


def shown_clustering(pairs: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Return the rows of the clustering with which most configurations are compared, and its name.

    Parameters
    ----------
    pairs
        As :func:`december_plugin.results.configurations.configuration_table` returns them. With a tie, the clustering
        with the fewest clusters is taken.

    Returns
    -------
    (pandas.DataFrame, str)
        Its rows, and method, K and space in words.

    Raises
    ------
    SettingsError
        If no two configurations are compared.
    """
    compared = pairs[pairs["name_a"] != pairs["name_b"]]
    if compared.empty:
        raise SettingsError("no two configurations with neurons in common have been compared yet.")
    sizes = compared.groupby(["n_clusters", "method", "clustering_hash"], sort=True).size()
    n_clusters, method, clustering_hash = sizes.idxmax()
    rows = pairs[(pairs["n_clusters"] == n_clusters) & (pairs["clustering_hash"] == clustering_hash)]
    spaces = {space_in_words(row.space, row.normalize) for row in rows.itertuples(index=False)}
    in_space = OWN_SPACES if len(spaces) > 1 else spaces.pop()
    parts = [f"{NAMES.get(method, method)}, K = {n_clusters}", "" if in_space == READOUT_SPACE.phrase else in_space]
    parts += [rows["alignment"].iloc[0], filter_of_column(rows["minimum_test_correlation"].iloc[0]).phrase]
    return rows.reset_index(drop=True), ", ".join(filter(None, parts))
