"""The partition that the seeds of a configuration share, as pandas data frames.

Restrictions and configurations (dataset, model, trainer and clustering, without the seed) are those of
:mod:`december_plugin.results.agreement`. ``docs/are-there-types.md`` explains how to read them, and their limits.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from december_plugin.findings.summaries import consensus_neurons
from december_plugin.results.labels import CONFIGURATION, in_order, labelled_configurations
from december_plugin.results.queries import (
    assignments_of,
    configuration_key,
    current_labels,
    one_configuration,
)
from december_plugin.schemas.consensus import consensus_of
from december_plugin.schemas.declare import DecemberTables


def consensus_table(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return how much the seeds of every configuration share, from the table ``Consensus``.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments to take; a configuration is left out unless ``Consensus`` has an entry of exactly the seeds
        that are selected, with the labels that they have now.

    Returns
    -------
    pandas.DataFrame
        One row per configuration: ``label``, ``identity``, ``method``, ``n_clusters``, ``trainer_role``, ``n_seeds``,
        ``n_neurons`` (that all seeds have), ``n_clusters_found``, ``mean_stability``, ``core_fraction`` (share of
        neurons that all seeds put into the same consensus cluster), and the configuration's key.

    See Also
    --------
    consensus_frame : The consensus of one configuration, neuron by neuron.
    december_plugin.plots.consensus_figure : Draws how stable neurons are.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import consensus_table
    >>> lab = open_lab(schema="retina")
    >>> table = consensus_table(lab.tables)
    >>> table[["label", "n_clusters", "n_neurons", "mean_stability", "core_fraction"]].round(2)
          label  n_clusters  n_neurons  mean_stability  core_fraction
    0   k-means           2         70            0.92           0.77
    1  DECEMber           3         70            0.94           0.83
    2   k-means           3         70            0.89           0.66
    3   k-means           4         70            0.83           0.54
    """
    models = assignments_of(tables, restriction)
    key = configuration_key(tables)
    selected: dict[tuple[Any, ...], dict[int, str]] = {}
    for (*names, seed), digest in current_labels(tables, models).items():
        selected.setdefault(tuple(names), {})[int(seed)] = digest
    described = {
        tuple(row[name] for name in key): {name: row[name] for name in (*CONFIGURATION, "gradient_ratio")}
        for row in labelled_configurations(tables, models).to_dict("records")
    }
    columns = {"n_consensus_neurons": "n_neurons", "n_consensus_clusters": "n_clusters_found"}
    found = ["n_seeds", "n_neurons", "n_clusters_found", "mean_stability", "core_fraction"]
    rows = []
    for entry in tables.Consensus().fetch(as_dict=True):
        configuration = tuple(entry[name] for name in key)
        seeds = dict(zip((int(seed) for seed in entry["seeds"]), entry["labels_md5s"], strict=True))
        if selected.get(configuration) == seeds:
            renamed = {columns.get(name, name): value for name, value in entry.items()}
            rows.append({**{name: renamed[name] for name in (*key, *found)}, **described[configuration]})
    order = [*CONFIGURATION, *found, *key]
    return in_order(pd.DataFrame(rows, columns=[*order, "gradient_ratio"]))[order]


def consensus_frame(tables: DecemberTables, restriction: Any) -> pd.DataFrame:
    """Return the consensus cluster of every neuron of one configuration, from the labels of its seeds as they are now.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Leaves at least two seeds of one configuration.

    Returns
    -------
    pandas.DataFrame
        ``data_key``, ``unit_id``, ``cluster`` (numbered as in the reference seed), ``stability`` (the share of seeds
        that put the neuron there, 1 = all), ``n_seeds``, and means over seeds of ``confidence`` and ``margin`` (the
        largest minus the second largest responsibility; NaN if a seed's were not stored), for the neurons that all
        seeds have. ``attrs`` has the ``reference_seed``.

    Raises
    ------
    SettingsError
        If the restriction leaves several configurations or fewer than two seeds.

    See Also
    --------
    consensus_table : How much the seeds of every configuration share.
    stable_neurons : Only the neurons on which seeds agree.
    december_plugin.evaluation.consensus_partition : How seeds vote.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import consensus_frame
    >>> lab = open_lab(schema="retina")
    >>> frame = consensus_frame(lab.tables, {"method": "kmeans", "n_clusters": 3})
    >>> frame.head(3).round(2)
      data_key  unit_id  cluster  stability  n_seeds  confidence  margin
    0    first        7        1        1.0        3         1.0     1.0
    1    first       10        0        1.0        3         1.0     1.0
    2    first       13        2        1.0        3         1.0     1.0
    >>> frame.groupby("cluster")["stability"].agg(["size", "mean"]).round(2)
             size  mean
    cluster
    0          23  0.88
    1          24  0.89
    2          23  0.88
    """
    keys = one_configuration(tables, restriction, n_seeds=2)
    found = consensus_of(tables.ClusterAssignment, keys)
    frame = consensus_neurons(found.partition, found.neurons.ids, confidences=found.confidences, margins=found.margins)
    frame.attrs["reference_seed"] = int(keys[found.partition.reference]["seed"])
    return frame
