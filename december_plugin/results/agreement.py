"""Questions to the filled tables, answered as pandas data frames.

Every function takes what :func:`december_plugin.schemas.december_tables` returned. A *configuration* is everything that
defines an assignment but the seed: dataset, model, trainer and clustering. Restrictions are DataJoint's: a dict, a
string of SQL, a list of keys, or another query. They may name the primary key, ``method`` and ``n_clusters``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import MEASURES
from december_plugin.evaluation.consensus import consensus_partition
from december_plugin.results.labels import in_order, labelled_configurations
from december_plugin.results.queries import (
    SUMMARY_COLUMNS,
    assignments_of,
    configuration_key,
    frame_of,
    known_types_name,
    one_assignment,
    one_configuration,
    seed_agreement_of,
    selected_assignments,
    with_columns_of,
)
from december_plugin.schemas.build import DecemberTables
from december_plugin.schemas.stored import (
    build_trained,
    full_config,
    stored_neurons,
    stored_state_dict,
)
from december_plugin.schemas.stored_labels import common_neurons

FIRST_COLUMNS = ("label", "identity", "method", "n_clusters", *SUMMARY_COLUMNS)


def agreement_table(
    tables: DecemberTables,
    restriction: Any = True,
    *,
    types_name: str | None = None,
    measure: str = "adjusted_rand_index",
) -> pd.DataFrame:
    """Return agreement and test correlation of every configuration, DECEMber beside its controls.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments to take.
    types_name
        Set of known types to compare with. None takes the only set there is, if there is one.
    measure
        Measure of agreement, a column of ``SeedAgreement``.

    Returns
    -------
    pandas.DataFrame
        One row per configuration, by dataset, model and number of clusters, DECEMber first. ``label``, what it is
        called (see :mod:`december_plugin.results.labels`; the same for configurations that differ in the number of
        clusters alone), and ``identity``, what that stands for, by which figures choose colour and marker; ``method``,
        ``n_clusters`` and what the trainer did (``trainer_role`` is "control" for a baseline that ended with the
        pretraining); ``n_models``; agreement between seeds ``agreement_mean``, ``agreement_sd``, ``n_pairs``; agreement
        with known types ``types_agreement_mean``, ``types_agreement_sd`` over models; single-trial correlation on the
        test tier ``test_correlation_mean``, ``test_correlation_sd`` over models; the trainer's comment, and the
        configuration's key. Standard deviations have the divisor n - 1. What is not computed yet is NaN.

    Raises
    ------
    SettingsError
        For an unknown measure or set of types, or if there are several sets and none is named.
    """
    if measure not in MEASURES:
        raise SettingsError(f"there is no measure {measure!r}. Allowed: {', '.join(MEASURES)}.")
    types_name = known_types_name(tables, types_name)
    models = assignments_of(tables, restriction)
    types = tables.LabelAgreement & {"types_name": types_name or ""}
    models = with_columns_of(models, types.proj(types_agreement=measure), tables)
    models = with_columns_of(models, tables.TestPerformance.proj(test_correlation="single_trial_correlation"), tables)
    key = configuration_key(tables)
    groups = models.groupby(key, sort=False, dropna=False)
    frame = groups[["n_clusters", "method", *SUMMARY_COLUMNS]].first().astype({"method": object})
    # The same setting "auto" leads to another strength for every seed.
    for name in ("strength", "gradient_ratio"):
        frame[name] = groups[name].mean()
    frame["n_models"] = groups.size()
    for name in ("types_agreement", "test_correlation"):
        frame[f"{name}_mean"], frame[f"{name}_sd"] = groups[name].mean(), groups[name].std()
    frame = frame.reset_index().merge(seed_agreement_of(tables, models, measure), on=key, how="left")
    frame["n_pairs"] = frame["n_pairs"].fillna(0).astype(int)
    comments = frame_of(tables.nnfabrik.Trainer.proj("trainer_comment"))
    frame = frame.merge(comments, on=["trainer_fn", "trainer_hash"], how="left")
    frame = frame.merge(labelled_configurations(tables, models)[[*key, "label", "identity"]], on=key, how="left")
    order = [
        "agreement_mean",
        "agreement_sd",
        "n_pairs",
        "types_agreement_mean",
        "types_agreement_sd",
        "test_correlation_mean",
        "test_correlation_sd",
        "trainer_comment",
    ]
    return in_order(frame[[*FIRST_COLUMNS, "n_models", *order, *key]])


def best_configurations(
    tables: DecemberTables, restriction: Any = True, *, tolerance: float = 0.005, **settings: Any
) -> pd.DataFrame:
    """Return the configurations that predict as well as the best one, the most reproducible first.

    Agreement between seeds can only be compared between configurations that predict equally well, and at the same
    number of clusters.

    Parameters
    ----------
    tables, restriction, **settings
        As for :func:`agreement_table`.
    tolerance
        How far the mean test correlation may be below that of the best configuration of the same dataset
        (correlation, dimensionless).

    Returns
    -------
    pandas.DataFrame
        The rows of :func:`agreement_table` that qualify, with ``test_below_best`` and ``rank``, by ``agreement_mean``
        within dataset and number of clusters; rank 1 is the best.

    Raises
    ------
    SettingsError
        If the tolerance is negative.
    """
    if not tolerance >= 0:
        raise SettingsError(f"tolerance is {tolerance!r}; it must be a difference of correlations of at least 0.")
    frame = agreement_table(tables, restriction, **settings).dropna(subset=["agreement_mean", "test_correlation_mean"])
    dataset = ["dataset_fn", "dataset_hash"]
    frame["test_below_best"] = (
        frame.groupby(dataset)["test_correlation_mean"].transform("max") - frame["test_correlation_mean"]
    )
    frame = frame[frame["test_below_best"] <= tolerance]
    frame = frame.sort_values([*dataset, "n_clusters", "agreement_mean"], ascending=[True, True, True, False])
    frame["rank"] = frame.groupby([*dataset, "n_clusters"]).cumcount() + 1
    return frame.reset_index(drop=True)


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
        Who the neuron is.
    restriction
        Which assignments to look into.

    Returns
    -------
    pandas.DataFrame
        One row per assignment that has the neuron: ``method``, ``n_clusters``, ``seed``, ``cluster``, ``confidence``,
        ``trainer_role`` and the rest of the key.

    Raises
    ------
    SettingsError
        If no assignment has this neuron.
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

    Cluster numbers mean nothing across seeds: see :mod:`december_plugin.evaluation.consensus` for how they are matched
    and voted on. A neuron's cluster is the one that most seeds give it.

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
    """Return data loaders and trained model behind one assignment, the model on the CPU with its trained weights.

    The loaders serve the neurons in the order in which the model was trained on them, which is that of the readout
    vectors and of the assignment, also where the recording has them in another order now.

    Raises
    ------
    SettingsError
        If the restriction leaves none or several assignments, a function of the entry cannot be found, or the weights
        do not fit the model that it builds now.
    RecordingError
        If the recordings have other sessions or neurons than at the training.
    """
    key = one_assignment(tables, restriction)
    config = full_config(tables.nnfabrik, key, trainer=False)
    weights, neurons = stored_state_dict(tables.TrainedModel, key), stored_neurons(tables.TrainedModel, key)
    loaders, model = build_trained(config, key, state_dict=weights, neurons=neurons)
    return loaders, model.eval()
