"""How the clusters of one method split as their number grows, from stored assignments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from december_plugin.errors import SettingsError
from december_plugin.evaluation.cluster_tree import ClusterTree, cluster_tree
from december_plugin.results.assignments import assignment_frame
from december_plugin.results.consensus import consensus_frame
from december_plugin.results.queries import configuration_key, selected_assignments
from december_plugin.schemas.declare import DecemberTables

NEURON = ["data_key", "unit_id"]


def cluster_tree_of(tables: DecemberTables, configurations: pd.DataFrame | Sequence[dict[str, Any]]) -> ClusterTree:
    """Return which cluster of few becomes which of many, over configurations that differ in the number of clusters.

    With several seeds, their consensus counts, with one seed its assignment; neurons that some lack are left out.

    Parameters
    ----------
    tables
        The tables.
    configurations
        Rows of :func:`~december_plugin.results.agreement.agreement_table` of one dataset, model and ``label``, or any
        rows with the key of a configuration and ``n_clusters``.

    Raises
    ------
    SettingsError
        If there are fewer than two numbers of clusters, one occurs twice, or the configurations share no neuron.

    See Also
    --------
    agreement_table : Lists the configurations.
    december_plugin.plots.cluster_tree_figure : Draws the tree.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import agreement_table, cluster_tree_of
    >>> lab = open_lab(schema="retina")
    >>> table = agreement_table(lab.tables, "method = 'kmeans' AND n_clusters < 4")
    >>> cluster_tree_of(lab.tables, table).nodes[["n_clusters", "cluster", "n_neurons", "parent"]]
       n_clusters  cluster  n_neurons  parent
    0           2        1         47     NaN
    1           2        0         23     NaN
    2           3        1         24     1.0
    3           3        2         23     1.0
    4           3        0         23     0.0
    """
    key = configuration_key(tables)
    rows = pd.DataFrame(configurations)
    if rows.empty or rows["n_clusters"].nunique() < 2:
        raise SettingsError("a cluster tree needs at least two numbers of clusters of one method.")
    if rows["n_clusters"].duplicated().any():
        twice = int(rows.loc[rows["n_clusters"].duplicated(), "n_clusters"].iloc[0])
        raise SettingsError(
            f"there are several configurations with {twice} clusters; choose those that differ in nothing but the "
            "number of clusters, e.g. the rows of agreement_table with one label."
        )
    frames = []
    for row in rows.to_dict("records"):
        keys = selected_assignments(tables, {name: row[name] for name in key}).fetch("KEY", order_by="seed")
        frame = consensus_frame(tables, keys) if len(keys) > 1 else assignment_frame(tables, keys[0])
        frames.append(frame.set_index(NEURON)["cluster"].rename(int(row["n_clusters"])))
    joined = pd.concat(frames, axis=1, join="inner")
    if joined.empty:
        raise SettingsError("the configurations have no neuron in common.")
    return cluster_tree({int(count): joined[count].to_numpy() for count in joined})
