"""Colours of clusters and of known types: a type has the colour of the cluster that it shares most neurons with."""

from __future__ import annotations

import pandas as pd

from december_plugin.findings.data import SelectedConfiguration
from december_plugin.plots.groups import as_groupings
from december_plugin.plots.style import PALE


def cluster_colors(chosen: SelectedConfiguration) -> list[str]:
    """Return one colour per cluster, by its number."""
    return _colors(chosen)[0]


def type_colors(chosen: SelectedConfiguration) -> dict[str, str]:
    """Return one colour per known type, by its name; that of a matched cluster where there is one."""
    return _colors(chosen)[1]


def _colors(chosen: SelectedConfiguration) -> tuple[list[str], dict[str, str]]:
    neurons = chosen.neurons
    codes = neurons["cluster"].fillna(-1).astype(int)
    groupings = {"cluster": codes.to_numpy()}
    if "type" in neurons and neurons["type"].notna().any():
        types = neurons["type"].where(neurons["type"].notna(), None)
        groupings["type"] = pd.Series([None if name is None else str(name) for name in types], dtype=object).to_numpy()
    clusters, *others = as_groupings(groupings, len(neurons), reference="cluster")
    of_cluster = dict(zip(clusters.names, clusters.colors, strict=True))
    colors = [of_cluster.get(str(code), PALE) for code in range(max(int(codes.max()) + 1, 1))]
    return colors, dict(zip(others[0].names, others[0].colors, strict=True)) if others else {}
