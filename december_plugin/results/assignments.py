"""Clusters of single neurons, in one model or in all, and the model behind an assignment."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from december_plugin.errors import SettingsError
from december_plugin.evaluation.consensus import consensus_partition
from december_plugin.results.queries import (
    assignments_of,
    configuration_key,
    one_assignment,
    one_configuration,
    selected_assignments,
)
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.stored_labels import common_neurons
from december_plugin.schemas.stored_models import (
    build_trained,
    full_config,
    stored_neurons,
    stored_state_dict,
)


def assignment_frame(tables: DecemberTables, restriction: Any) -> pd.DataFrame:
    """Return the clusters of all neurons of one assignment: ``data_key``, ``unit_id``, ``cluster``, ``confidence``.

    Raises
    ------
    SettingsError
        If the restriction leaves none or several assignments.
    """
    key = one_assignment(tables, restriction)
    sessions = (tables.ClusterAssignment.Session & key).fetch(
        "data_key", "unit_ids", "labels", "confidences", as_dict=True, order_by="data_key"
    )
    frames = [
        pd.DataFrame(
            {
                "data_key": session["data_key"],
                "unit_id": session["unit_ids"],
                "cluster": session["labels"].astype(np.int64),
                "confidence": session["confidences"],
            }
        )
        for session in sessions
    ]
    return pd.concat(frames, ignore_index=True)


def neuron_clusters(tables: DecemberTables, data_key: str, unit_id: int, restriction: Any = True) -> pd.DataFrame:
    """Return the clusters of one neuron in all models.

    Assignments that were written to ``NeuronCluster`` are found by its index; the others are read from their arrays.

    Parameters
    ----------
    tables
        The tables.
    data_key, unit_id
        Session and unit id of the neuron.
    restriction
        Which assignments to search.

    Returns
    -------
    pandas.DataFrame
        One row per assignment that has the neuron: ``method``, ``n_clusters``, ``seed``, ``cluster``, ``confidence``,
        ``trainer_role`` and the rest of the key.

    Raises
    ------
    SettingsError
        If no assignment has this neuron.

    See Also
    --------
    stable_neurons : How stable the cluster of every neuron is.
    consensus_frame : The cluster of every neuron that the seeds share.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import neuron_clusters
    >>> lab = open_lab(schema="retina")
    >>> found = neuron_clusters(lab.tables, "first", 10, {"n_clusters": 3})
    >>> found[["method", "n_clusters", "seed", "cluster", "confidence"]].round(1)
         method  n_clusters  seed  cluster  confidence
    0    kmeans           3     1        0         1.0
    1    kmeans           3     2        0         1.0
    2    kmeans           3     3        0         1.0
    3  december           3     1        1         1.0
    4  december           3     2        2         1.0
    5  december           3     3        1         1.0
    """
    neuron = {"data_key": data_key, "unit_id": int(unit_id)}
    assignments = selected_assignments(tables, restriction)
    in_rows = tables.NeuronCluster & {"data_key": data_key} & assignments.proj()
    found = (in_rows * (tables.NeuronCluster.Neuron & neuron).proj("confidence", cluster="label")).fetch(as_dict=True)
    sessions = tables.ClusterAssignment.Session & {"data_key": data_key} & assignments.proj()
    in_arrays = sessions - in_rows.proj(*sessions.primary_key)
    for row in in_arrays.fetch("KEY", "unit_ids", "labels", "confidences", as_dict=True):
        at = np.flatnonzero(row.pop("unit_ids") == neuron["unit_id"])
        labels, confidences = row.pop("labels"), row.pop("confidences")
        if len(at):
            found.append({**row, "cluster": int(labels[at[0]]), "confidence": float(confidences[at[0]])})
    if not found:
        known = sorted(set(tables.ClusterAssignment.Session.fetch("data_key")))
        raise SettingsError(
            f"no assignment has unit {unit_id} of session {data_key!r}. Sessions with assignments: "
            f"{', '.join(known) or 'none'}."
        )
    key = list(tables.ClusterAssignment.primary_key)
    frame = pd.DataFrame(found)[[*key, "cluster", "confidence"]].merge(assignments_of(tables, restriction), on=key)
    frame = frame[["method", "n_clusters", "seed", "cluster", "confidence", "trainer_role", *configuration_key(tables)]]
    return frame.sort_values([*configuration_key(tables), "seed"], ignore_index=True)


def stable_neurons(tables: DecemberTables, restriction: Any, *, minimum: float = 0.0) -> pd.DataFrame:
    """Return how stable the cluster of every neuron is across the seeds of one configuration.

    Cluster numbers cannot be compared across seeds: :mod:`december_plugin.evaluation.consensus` matches them first. A
    neuron's cluster is the one to which most seeds assign it.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Leaves the seeds of one configuration.
    minimum
        Leave out neurons with a smaller ``stability``.

    Returns
    -------
    pandas.DataFrame
        ``data_key``, ``unit_id``, ``cluster`` (numbered as in the reference seed), ``stability`` (the share of seeds
        that put the neuron there, 1 = all) and ``n_seeds``, for the neurons that all seeds have. ``attrs`` has the
        ``reference_seed``.

    Raises
    ------
    SettingsError
        If the restriction leaves several configurations or fewer than two seeds.

    See Also
    --------
    consensus_frame : The same with confidences and margins.
    neuron_clusters : The clusters of one neuron in all models.
    december_plugin.evaluation.consensus_partition : How seeds vote.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import stable_neurons
    >>> lab = open_lab(schema="retina")
    >>> neurons = stable_neurons(lab.tables, {"method": "december"})
    >>> neurons.head(3)
      data_key  unit_id  cluster  stability  n_seeds
    0    first        7        1   1.000000        3
    1    first       10        2   1.000000        3
    2    first       13        0   0.666667        3
    >>> len(neurons), len(stable_neurons(lab.tables, {"method": "december"}, minimum=1))
    (70, 58)
    """
    keys = one_configuration(tables, restriction, n_seeds=2)
    neurons = common_neurons(tables.ClusterAssignment, keys)
    consensus = consensus_partition(neurons.labels)
    frame = pd.DataFrame(
        {
            "data_key": neurons.ids.data_keys,
            "unit_id": neurons.ids.unit_ids,
            "cluster": consensus.clusters,
            "stability": consensus.stability,
            "n_seeds": len(keys),
        }
    )
    frame = frame[frame["stability"] >= minimum].reset_index(drop=True)
    frame.attrs["reference_seed"] = int(keys[consensus.reference]["seed"])
    return frame


def load_assigned_model(tables: DecemberTables, restriction: Any) -> tuple[Any, Any]:
    """Return the data loaders and the trained model behind one assignment, the model on the CPU.

    The loaders serve the neurons in the order in which the model was trained on them, which is that of the readout
    vectors and of the assignment, even if the recording now has them in another order.

    Raises
    ------
    SettingsError
        If the restriction leaves none or several assignments, a function of the entry cannot be found, or the weights
        do not fit the model that it builds now.
    RecordingError
        If the recordings have other sessions or neurons than at the training.

    See Also
    --------
    exciting_images : Images that excite the neurons of each cluster.
    december_plugin.insilico.maximally_exciting_images : Computes such images with a model.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import load_assigned_model
    >>> lab = open_lab(schema="retina")
    >>> loaders, model = load_assigned_model(lab.tables, {"method": "december", "seed": 1})
    >>> images, responses = next(iter(loaders["test"]["first"]))
    >>> images.shape, model(images, data_key="first").shape
    (torch.Size([8, 1, 2, 3]), torch.Size([8, 40]))
    """
    key = one_assignment(tables, restriction)
    config = full_config(tables.nnfabrik, key, trainer=False)
    weights, neurons = stored_state_dict(tables.TrainedModel, key), stored_neurons(tables.TrainedModel, key)
    loaders, model = build_trained(config, key, state_dict=weights, neurons=neurons)
    return loaders, model.eval()
