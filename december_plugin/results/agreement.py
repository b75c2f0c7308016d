"""Questions to the filled tables, answered as pandas data frames.

Every function takes what :func:`december_plugin.schemas.december_tables` returned. A *configuration* is everything that
defines an assignment but the seed: data set, model, trainer and clustering. Restrictions are DataJoint's: a dict, a
string of SQL, a list of keys, or another query. They may name the primary key, ``method`` and ``n_clusters``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import MEASURES
from december_plugin.evaluation.consensus import consensus_partition
from december_plugin.schemas.build import DecemberTables
from december_plugin.schemas.restrictions import restricted
from december_plugin.schemas.stored import (
    build_trained,
    full_config,
    stored_neurons,
    stored_state_dict,
)
from december_plugin.schemas.stored_labels import common_neurons
from december_plugin.text.naming import configuration_labels, entry_names, in_order

SUMMARY_COLUMNS = ("trainer_role", "strength_setting", "strength", "gradient_ratio", "locked_in", "pretrain_epochs")
FIRST_COLUMNS = ("label", "method", "n_clusters", *SUMMARY_COLUMNS)


def configuration_key(tables: DecemberTables) -> list[str]:
    """Return the attributes that make a configuration: the primary key of ``ClusterAssignment`` without the seed."""
    return [name for name in tables.ClusterAssignment.primary_key if name != "seed"]


def seed_agreement_summary(tables: DecemberTables, restriction: Any = True, **settings: Any) -> Any:
    """Return mean, sd and number of pairs of seeds per configuration as a DataJoint query.

    See :meth:`december_plugin.schemas.agreement.SeedAgreement.summary`.
    """
    return tables.SeedAgreement().summary(restriction, **settings)


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
        One row per configuration, by data set, model and number of clusters, DECEMber first. ``label``, its name (see
        :mod:`december_plugin.text.naming`; the same for configurations that differ in the number of clusters alone);
        ``method``, ``n_clusters`` and what the trainer did (``trainer_role`` is "control" for a baseline that ended
        with the pretraining); ``n_models``; agreement between seeds ``seeds_mean``, ``seeds_sd``, ``n_pairs``;
        agreement with known types ``types_mean``, ``types_sd`` over models; single-trial correlation on the test tier
        ``test_mean``, ``test_sd`` over models; the trainer's comment, and the configuration's key. Standard deviations
        have the divisor n - 1. What is not computed yet is NaN.

    Raises
    ------
    SettingsError
        For an unknown measure or set of types, or if there are several sets and none is named.
    """
    if measure not in MEASURES:
        raise SettingsError(f"there is no measure {measure!r}. Allowed: {', '.join(MEASURES)}.")
    types_name = _types_name(tables, types_name)
    models = _assignments(tables, restriction)
    types = tables.LabelAgreement & {"types_name": types_name}
    models = _left_join(models, types.proj(types=measure), tables)
    models = _left_join(models, tables.TestPerformance.proj(test="single_trial_correlation"), tables)
    key = configuration_key(tables)
    groups = models.groupby(key, sort=False, dropna=False)
    frame = groups[["n_clusters", "method", *SUMMARY_COLUMNS]].first().astype({"method": object})
    # The same setting "auto" leads to another strength for every seed.
    for name in ("strength", "gradient_ratio"):
        frame[name] = groups[name].mean()
    frame["n_models"] = groups.size()
    for name in ("types", "test"):
        frame[f"{name}_mean"], frame[f"{name}_sd"] = groups[name].mean(), groups[name].std()
    frame = frame.reset_index().merge(_pair_summary(tables, models, measure), on=key, how="left")
    frame["n_pairs"] = frame["n_pairs"].fillna(0).astype(int)
    comments = _frame(tables.nnfabrik.Trainer.proj("trainer_comment"))
    frame = frame.merge(comments, on=["trainer_fn", "trainer_hash"], how="left")
    frame = frame.merge(labelled_configurations(tables, models)[[*key, "label"]], on=key, how="left")
    order = ["seeds_mean", "seeds_sd", "n_pairs", "types_mean", "types_sd", "test_mean", "test_sd", "trainer_comment"]
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
        How far the mean test correlation may be below that of the best configuration of the same data set
        (correlation, dimensionless).

    Returns
    -------
    pandas.DataFrame
        The rows of :func:`agreement_table` that qualify, with ``test_below_best`` and ``rank``, by ``seeds_mean``
        within data set and number of clusters; rank 1 is the best.

    Raises
    ------
    SettingsError
        If the tolerance is negative.
    """
    if not tolerance >= 0:
        raise SettingsError(f"tolerance is {tolerance!r}; it must be a difference of correlations of at least 0.")
    frame = agreement_table(tables, restriction, **settings).dropna(subset=["seeds_mean", "test_mean"])
    dataset = ["dataset_fn", "dataset_hash"]
    frame["test_below_best"] = frame.groupby(dataset)["test_mean"].transform("max") - frame["test_mean"]
    frame = frame[frame["test_below_best"] <= tolerance]
    frame = frame.sort_values([*dataset, "n_clusters", "seeds_mean"], ascending=[True, True, True, False])
    frame["rank"] = frame.groupby([*dataset, "n_clusters"]).cumcount() + 1
    return frame.reset_index(drop=True)


def assignment_frame(tables: DecemberTables, restriction: Any) -> pd.DataFrame:
    """Return the clusters of all neurons of one assignment: ``data_key``, ``unit_id``, ``label``, ``confidence``.

    Raises
    ------
    SettingsError
        If the restriction leaves none or several assignments.
    """
    key = _one_assignment(tables, restriction)
    sessions = (tables.ClusterAssignment.Session & key).fetch(
        "data_key", "unit_ids", "labels", "confidences", as_dict=True, order_by="data_key"
    )
    frames = [
        pd.DataFrame(
            {
                "data_key": session["data_key"],
                "unit_id": session["unit_ids"],
                "label": session["labels"].astype(np.int64),
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
        One row per assignment that has the neuron: ``method``, ``n_clusters``, ``seed``, ``label``, ``confidence``,
        ``trainer_role`` and the rest of the key.

    Raises
    ------
    SettingsError
        If no assignment has this neuron.
    """
    neuron = {"data_key": data_key, "unit_id": int(unit_id)}
    assignments = _selected(tables, restriction)
    in_rows = tables.NeuronCluster & {"data_key": data_key} & assignments.proj()
    found = (in_rows * (tables.NeuronCluster.Neuron & neuron)).fetch(as_dict=True)
    sessions = tables.ClusterAssignment.Session & {"data_key": data_key} & assignments.proj()
    in_arrays = sessions - in_rows.proj(*sessions.primary_key)
    for row in in_arrays.fetch("KEY", "unit_ids", "labels", "confidences", as_dict=True):
        at = np.flatnonzero(row.pop("unit_ids") == neuron["unit_id"])
        labels, confidences = row.pop("labels"), row.pop("confidences")
        if len(at):
            found.append({**row, "label": int(labels[at[0]]), "confidence": float(confidences[at[0]])})
    if not found:
        known = sorted(set(tables.ClusterAssignment.Session.fetch("data_key")))
        raise SettingsError(
            f"no assignment has unit {unit_id} of session {data_key!r}. Sessions with assignments: "
            f"{', '.join(known) or 'none'}."
        )
    key = list(tables.ClusterAssignment.primary_key)
    frame = pd.DataFrame(found)[[*key, "label", "confidence"]].merge(_assignments(tables, restriction), on=key)
    frame = frame[["method", "n_clusters", "seed", "label", "confidence", "trainer_role", *configuration_key(tables)]]
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
    keys = one_configuration(tables, restriction)
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
    key = _one_assignment(tables, restriction)
    config = full_config(tables.nnfabrik, key, trainer=False)
    weights, neurons = stored_state_dict(tables.TrainedModel, key), stored_neurons(tables.TrainedModel, key)
    loaders, model = build_trained(config, key, state_dict=weights, neurons=neurons)
    return loaders, model.eval()


def labelled_configurations(tables: DecemberTables, models: pd.DataFrame) -> pd.DataFrame:
    """Return the configurations of assignments with their names.

    Parameters
    ----------
    tables
        The tables.
    models
        One row per assignment: the configuration's key, ``method``, ``n_clusters``, ``trainer_role``,
        ``gradient_ratio``. The names tell these configurations apart: of fewer configurations they can be shorter.

    Returns
    -------
    pandas.DataFrame
        One row per configuration: its key, ``label``, ``method``, ``n_clusters``, ``trainer_role`` and the mean
        ``gradient_ratio``.
    """
    key = configuration_key(tables)
    groups = models.groupby(key, sort=False, dropna=False)
    frame = groups[["method", "n_clusters", "trainer_role"]].first()
    frame["gradient_ratio"] = groups["gradient_ratio"].mean()
    frame = frame.reset_index()
    used = frame[["trainer_fn", "trainer_hash"]].drop_duplicates().to_dict("records")
    trainers = _frame((tables.nnfabrik.Trainer & used).proj("trainer_comment", "trainer_config"))
    clusterings = _frame(tables.Clustering.proj(clustering_settings="settings", clustering_description="description"))
    described = frame.merge(trainers, on=["trainer_fn", "trainer_hash"], how="left")
    described = described.merge(clusterings, on="clustering_hash", how="left")
    return frame.assign(label=pd.Series(configuration_labels(described), index=frame.index, dtype=pd.StringDtype()))


def names_of(tables: DecemberTables, kind: str, table: pd.DataFrame) -> dict[tuple[str, str], str]:
    """Return the names of the data sets or models of a table: comments, and the settings that differ.

    Parameters
    ----------
    tables
        The tables.
    kind
        "dataset" or "model".
    table
        Rows with ``{kind}_fn`` and ``{kind}_hash``, such as those of :func:`agreement_table`.

    Returns
    -------
    dict of (str, str) to str
        Function and hash to name; no two names are alike.
    """
    key = [f"{kind}_fn", f"{kind}_hash"]
    entries = _frame(getattr(tables.nnfabrik, kind.capitalize()).proj(f"{kind}_comment", f"{kind}_config"))
    entries = table[key].drop_duplicates().merge(entries, on=key)
    names = entry_names(entries.rename(columns={f"{kind}_{name}": name for name in ("fn", "comment", "config")}))
    return dict(zip(entries[key].itertuples(index=False, name=None), names, strict=True))


def one_configuration(tables: DecemberTables, restriction: Any) -> list[dict[str, Any]]:
    """Return the keys of the assignments that a restriction leaves, by seed; they must be of one configuration."""
    keys = _selected(tables, restriction).fetch("KEY", order_by="seed")
    names = configuration_key(tables)
    configurations = {tuple(key[name] for name in names) for key in keys}
    if len(configurations) != 1 or len(keys) < 2:
        raise SettingsError(
            f"the restriction leaves {len(keys)} assignments of {len(configurations)} configurations; it must leave at "
            "least two seeds of one configuration. agreement_table() lists the configurations with their keys."
        )
    return keys


# --- parts of the above ------------------------------------------------------------------------------------------


def _frame(query: Any, *attributes: str) -> pd.DataFrame:
    """Return a query as a frame that has its columns also when it has no rows."""
    return pd.DataFrame(query.fetch(*attributes, as_dict=True), columns=list(attributes) or list(query.heading.names))


def _selected(tables: DecemberTables, restriction: Any) -> Any:
    """Return the assignments that a restriction leaves, with ``method`` and ``n_clusters``, as a query."""
    joined = tables.ClusterAssignment.proj(n_clusters="n_clusters_used") * tables.Clustering.proj("method")
    return restricted(joined, restriction)


def _assignments(tables: DecemberTables, restriction: Any) -> pd.DataFrame:
    """Return one row per assignment: key, method, ``n_clusters`` and what the trainer did."""
    query = tables.TrainingSummary.proj(*SUMMARY_COLUMNS)
    return _left_join(_frame(_selected(tables, restriction)), query, tables)


def _pair_summary(tables: DecemberTables, models: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return mean, sd and number of pairs per configuration, of pairs of which both models are selected."""
    key = configuration_key(tables)
    pairs = _frame(tables.SeedAgreement().proj(agreement=measure))
    for seed in ("seed_a", "seed_b"):
        selected = models[[*key, "seed"]].rename(columns={"seed": seed})
        pairs = pairs.merge(selected, on=[*key, seed])
    groups = pairs.groupby(key, sort=False)["agreement"]
    summary = {"seeds_mean": groups.mean(), "seeds_sd": groups.std(), "n_pairs": groups.size()}
    return pd.DataFrame(summary).reset_index()


def _left_join(frame: pd.DataFrame, query: Any, tables: DecemberTables) -> pd.DataFrame:
    other = _frame(query)
    shared = [name for name in tables.ClusterAssignment.primary_key if name in other.columns]
    return frame.merge(other.drop(columns=[c for c in ("types_name",) if c in other.columns]), on=shared, how="left")


def _types_name(tables: DecemberTables, types_name: str | None) -> str:
    known = sorted(tables.KnownTypes.fetch("types_name"))
    if types_name is None:
        if len(known) > 1:
            raise SettingsError(
                f"there are several sets of known types: {', '.join(known)}. Name one of them with --types, in Python "
                "with types_name."
            )
        return str(known[0]) if known else ""
    if types_name not in known:
        raise SettingsError(f"there are no known types named {types_name!r}. Known: {', '.join(known) or 'none'}.")
    return types_name


def _one_assignment(tables: DecemberTables, restriction: Any) -> dict[str, Any]:
    keys = _selected(tables, restriction).fetch("KEY", limit=2)
    if len(keys) != 1:
        found = "no assignment" if not keys else "more than one assignment"
        raise SettingsError(f"the restriction leaves {found}; it must leave exactly one. Add the seed, or use a key.")
    return keys[0]
