"""Confusion of stored assignments with known types, as a data frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.embeddings.neuron_ids import NeuronIds
from december_plugin.errors import SettingsError
from december_plugin.evaluation.confusion import ConfusionMatrix, confusion_matrix
from december_plugin.findings.summaries import confusion_counts
from december_plugin.results.queries import known_types_name, one_configuration
from december_plugin.schemas.consensus import consensus_of
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.stored_labels import assigned_labels


def confusion_frame(tables: DecemberTables, restriction: Any, *, types_name: str | None = None) -> pd.DataFrame:
    """Return the number of neurons by cluster and known type, matched, for one assignment or a consensus of seeds.

    Every neuron counts once: several seeds vote on its cluster (:mod:`december_plugin.evaluation.consensus`).

    Parameters
    ----------
    tables
        The tables.
    restriction
        Leaves one assignment, or the seeds of one configuration. It may name the primary key, ``method``,
        ``n_clusters``.
    types_name
        Set of known types; None: the only one.

    Returns
    -------
    pandas.DataFrame
        Index ``cluster`` (as the reference seed numbers them; -1, the last row, are neurons without one), columns the
        types; matched ones come first, at the same place. ``attrs`` has ``n_seeds``, ``reference_seed``,
        ``types_name``; ``per_type``, a frame with ``cluster``, ``n_neurons``, ``recall`` and ``precision`` by type;
        ``accuracy``; ``n_unlabelled`` and ``n_unassigned``, the neurons without a known type, and the labelled neurons
        that not all seeds have.

    Raises
    ------
    SettingsError
        If the restriction leaves no assignment or several configurations, the set of types does not exist, or none of
        the neurons has a known type.

    See Also
    --------
    december_plugin.plots.confusion_figure : Draws the counts.
    december_plugin.evaluation.confusion_matrix : The same for any two partitions.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import confusion_frame
    >>> lab = open_lab(schema="retina")
    >>> frame = confusion_frame(lab.tables, {"method": "kmeans", "n_clusters": 3, "seed": 1})
    >>> frame
    type      0   1   2
    cluster
    1        22   0   2
    0         2  19   0
    2         0   4  21
    >>> round(frame.attrs["accuracy"], 2)
    0.89
    >>> confusion_frame(lab.tables, {"method": "kmeans", "n_clusters": 3}).attrs["accuracy"]  # seeds vote
    1.0
    """
    keys = one_configuration(tables, restriction)
    name = known_types_name(tables, types_name)
    if name is None:
        raise SettingsError("there are no known types. `december types import` stores those of a CSV file.")
    types = tables.KnownTypes().frame(name)
    assigned = assigned_labels(tables.ClusterAssignment, keys[0])
    labels, ids, reference = assigned.labels.astype(np.int64), assigned.ids, keys[0]
    if len(keys) > 1:
        consensus = consensus_of(tables.ClusterAssignment, keys)
        labels, ids = consensus.partition.clusters, consensus.neurons.ids
        reference = keys[consensus.partition.reference]
    matrix = _confusion(labels, ids, assigned.from_recording, types, name)
    return confusion_counts(matrix, n_seeds=len(keys), reference_seed=int(reference["seed"]), types_name=name)


def _confusion(
    labels: np.ndarray, ids: NeuronIds, from_recording: Mapping[str, bool], types: pd.DataFrame, name: str
) -> ConfusionMatrix:
    if not any(from_recording.get(key) for key in types["data_key"].unique()):
        sessions = ", ".join(sorted(from_recording))
        raise SettingsError(
            f"the known types {name!r} have no session in common with this assignment, whose sessions are {sessions}; "
            f"theirs are {', '.join(sorted(types['data_key'].unique()))}. Unit ids must come from the recordings."
        )
    type_ids = NeuronIds(types["data_key"].to_numpy(dtype=str), types["unit_id"].to_numpy())
    try:
        return confusion_matrix(labels, types["type"].to_numpy(), ids=ids, type_ids=type_ids, no_cluster=NO_CLUSTER)
    except SettingsError as error:
        raise SettingsError(
            f"the known types {name!r} have no neuron in common with this assignment: {error}"
        ) from error
