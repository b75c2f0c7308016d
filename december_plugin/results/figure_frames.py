"""Frames of figures that no other query returns, one function each; ``docs/figures.md`` lists them.

Restrictions and configurations are those of :mod:`december_plugin.results.agreement`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from december_plugin.clustering.methods import DECEMBER, alignment_recipe, embedding_space, quality_filter
from december_plugin.clustering.result import NO_CLUSTER
from december_plugin.embeddings.neuron_ids import NeuronIds, match_neurons
from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import MEASURES, compare_partitions
from december_plugin.evaluation.methods import Method
from december_plugin.results.agreement import agreement_table
from december_plugin.results.labels import names_of
from december_plugin.results.queries import assignments_of, configuration_key, frame_of
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.stored_labels import AssignedLabels, assigned_labels

DATA = ("dataset_fn", "dataset_hash", "model_fn", "model_hash")
TRAINING = ("trainer_role", "strength_setting", "pretrain_epochs", "learning_rate")
_SCORES = ("test_correlation", "validation_correlation")


def performance_frame(tables: DecemberTables, restriction: Any = True, *, by: Sequence[str] = TRAINING) -> pd.DataFrame:
    """Return how well the trained models predict, by dataset, model and settings of the trainer.

    Trainings that differ only in other settings, such as the seed or the number of clusters, are pooled.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which trainings to take: a restriction of ``TrainingSummary``.
    by
        What distinguishes rows: any of ``trainer_role``, ``strength_setting``, ``pretrain_epochs``, ``learning_rate``.

    Returns
    -------
    pandas.DataFrame
        One row per dataset, model and values of ``by``: the means ``strength`` and ``gradient_ratio``;
        ``test_correlation_mean`` and ``test_correlation_sd`` of the single-trial correlation on the test tier,
        ``validation_correlation_mean`` and ``validation_correlation_sd`` of the kept epoch (over trainings, divisor n -
        1); ``n_trainings``. Unknown values are NaN.

    Raises
    ------
    SettingsError
        If ``by`` names anything else.

    See Also
    --------
    performance_table : One row per trainer.
    december_plugin.plots.strength_figure : Draws the frame by strength.
    december_plugin.plots.pretraining_figure : Draws the frame by the length of the pretraining.
    december_plugin.plots.learning_rate_figure : Draws the frame by learning rate.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import performance_frame
    >>> lab = open_lab(schema="retina")
    >>> frame = performance_frame(lab.tables, by=["trainer_role"])
    >>> frame[["trainer_role", "test_correlation_mean", "test_correlation_sd", "n_trainings"]].round(2)
      trainer_role  test_correlation_mean  test_correlation_sd  n_trainings
    0     baseline                   0.88                 0.01            3
    1     december                   0.91                 0.01            3
    """
    unknown = [name for name in by if name not in TRAINING]
    if unknown:
        raise SettingsError(f"by has {unknown[0]!r}; allowed: {', '.join(TRAINING)}.")
    frame = _trainings(tables, restriction)
    keys = [*DATA, *by]
    groups = frame.groupby(keys, sort=True, dropna=False)
    found = groups[["strength", "gradient_ratio"]].mean()
    for name in _SCORES:
        found[f"{name}_mean"], found[f"{name}_sd"] = groups[name].mean(), groups[name].std()
    found["n_trainings"] = groups.size()
    return found.reset_index()


def learning_rates(tables: DecemberTables) -> pd.DataFrame:
    """Return the learning rate of every trainer: ``trainer_fn``, ``trainer_hash``, ``learning_rate``.

    It is the learning rate at which the clustering begins, if that has its own, else the initial one. If the settings
    leave it out, it is the trainer's default; for another package's trainer without a setting ``lr_init`` it is NaN.
    """
    from december_plugin.training.settings import TrainingSettings

    default = TrainingSettings.lr_init
    rows = [
        {
            "trainer_fn": row["trainer_fn"],
            "trainer_hash": row["trainer_hash"],
            "learning_rate": _learning_rate(row["trainer_fn"], row["trainer_config"], default),
        }
        for row in tables.nnfabrik.Trainer().fetch("trainer_fn", "trainer_hash", "trainer_config", as_dict=True)
    ]
    return pd.DataFrame(rows, columns=["trainer_fn", "trainer_hash", "learning_rate"])


def datasets_frame(tables: DecemberTables, restriction: Any = True, **settings: Any) -> pd.DataFrame:
    """Return the rows of ``agreement_table`` with the name and the number of neurons of every dataset.

    Parameters
    ----------
    tables, restriction, **settings
        As for :func:`~december_plugin.results.agreement.agreement_table`.

    Returns
    -------
    pandas.DataFrame
        Its rows with ``dataset`` (its name, see :mod:`december_plugin.text.entry_names`) and ``n_neurons`` (mean over
        the pairs of seeds, NaN without a pair).

    See Also
    --------
    agreement_table : The same without names of datasets.
    december_plugin.plots.datasets_figure : Draws the frame.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import datasets_frame
    >>> lab = open_lab(schema="retina")
    >>> frame = datasets_frame(lab.tables, {"n_clusters": 3})
    >>> frame[["dataset", "n_neurons", "label", "agreement_mean"]].round(2)
            dataset  n_neurons     label  agreement_mean
    0  two sessions       70.0  DECEMber            0.68
    1  two sessions       70.0   k-means            0.42
    """
    table = agreement_table(tables, restriction, **settings)
    key = configuration_key(tables)
    pairs = frame_of(tables.SeedAgreement().proj("n_neurons"))
    neurons = pairs.groupby(key)["n_neurons"].mean().reset_index() if len(pairs) else pairs[[*key, "n_neurons"]]
    table = table.merge(neurons, on=key, how="left")
    names = names_of(tables, "dataset", table)
    dataset = [names[pair] for pair in zip(table["dataset_fn"], table["dataset_hash"], strict=True)]
    return table.assign(dataset=pd.Series(dataset, index=table.index, dtype=object))


def measures_frame(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return the agreement between seeds by each measure, one below the other.

    Homogeneity and completeness are left out: they swap with the order of the two seeds, and their mean over all
    ordered pairs is nearly the V-measure.

    Returns
    -------
    pandas.DataFrame
        The rows of ``agreement_table``, once per ``measure``.

    See Also
    --------
    agreement_table : The agreement by one measure.
    december_plugin.plots.measures_figure : Draws the frame.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import measures_frame
    >>> lab = open_lab(schema="retina")
    >>> frame = measures_frame(lab.tables, {"method": "december"})
    >>> frame[["label", "measure", "agreement_mean"]].round(2)
          label              measure  agreement_mean
    0  DECEMber  adjusted_rand_index            0.68
    1  DECEMber      fowlkes_mallows            0.78
    2  DECEMber            v_measure            0.64
    """
    shown = [measure for measure in MEASURES if measure not in ("homogeneity", "completeness")]
    frames = [agreement_table(tables, restriction, measure=measure).assign(measure=measure) for measure in shown]
    return pd.concat(frames, ignore_index=True)


def restarts_frame(tables: DecemberTables, restriction: Any = True) -> pd.DataFrame:
    """Return the agreement between clusterings of one model that differ only in their random start.

    The starts are entries of ``Clustering`` that differ in the setting ``seed``, which is the method's seed, not the
    model's.

    Returns
    -------
    pandas.DataFrame
        One row per model and pair of starts: ``label``, ``identity`` and ``method`` as in ``agreement_table``,
        ``n_clusters``, ``start_a``, ``start_b``, ``ari``, and the model's key.

    See Also
    --------
    agreement_table : The agreement between seeds of the model.
    december_plugin.plots.restarts_figure : Draws the frame.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import restarts_frame
    >>> lab = open_lab(schema="retina")
    >>> entry = lab.tables.Clustering().add_entry("kmeans", 4, n_init=1, seed=1)
    >>> done = lab.tables.ClusterAssignment.populate(entry)
    >>> frame = restarts_frame(lab.tables)
    >>> frame[["label", "n_clusters", "seed", "start_a", "start_b", "ari"]].round(2)
         label  n_clusters  seed  start_a  start_b   ari
    0  k-means           4     1        0        1  0.83
    1  k-means           4     2        0        1  0.73
    2  k-means           4     3        0        1  0.76
    """
    models = assignments_of(tables, restriction)
    models = models[models["method"] != DECEMBER]
    settings = dict(zip(*tables.Clustering().fetch("clustering_hash", "settings"), strict=True))
    starts = {name: _start(own) for name, own in settings.items()}
    models = models.assign(
        start=[starts[hash_][0] for hash_ in models["clustering_hash"]],
        rest=[starts[hash_][1] for hash_ in models["clustering_hash"]],
    )
    key = [name for name in tables.ClusterAssignment.primary_key if name != "clustering_hash"]
    rows = []
    for _, group in models.groupby([*key, "method", "n_clusters", "rest"], sort=True):
        if len(group) < 2:
            continue
        group = group.sort_values("start")
        assigned = [
            assigned_labels(tables.ClusterAssignment, {name: row[name] for name in [*key, "clustering_hash"]})
            for row in group.to_dict("records")
        ]
        for a, b in itertools.combinations(range(len(group)), 2):
            first, second = group.iloc[a], group.iloc[b]
            # One model: the same neurons in the same order.
            ari = compare_partitions(assigned[a].labels, assigned[b].labels, no_cluster=NO_CLUSTER).adjusted_rand_index
            own = settings[first["clustering_hash"]]
            method = Method(
                str(first["method"]),
                space=embedding_space(own),
                neurons=quality_filter(own),
                alignment=alignment_recipe(own),
            )
            row = {"label": method.name, "identity": method, "method": method.kind}
            row |= {"n_clusters": int(first["n_clusters"])}
            row |= {"start_a": first["start"], "start_b": second["start"], "ari": ari}
            rows.append(row | {name: first[name] for name in key})
    return pd.DataFrame(rows, columns=["label", "identity", "method", "n_clusters", "start_a", "start_b", "ari", *key])


def first_starts(tables: DecemberTables) -> set[str]:
    """Return the hashes of the clusterings; of those that differ only in their random start, the first."""
    kept: dict[tuple[Any, ...], tuple[int, str]] = {}
    for row in tables.Clustering().fetch("KEY", "method", "n_clusters", "settings", as_dict=True):
        start, rest = _start(row["settings"])
        name = (row["method"], row["n_clusters"], rest)
        kept[name] = min(kept.get(name, (start, row["clustering_hash"])), (start, row["clustering_hash"]))
    return {hash_ for _, hash_ in kept.values()}


def embeddings_frame(tables: DecemberTables, assignments: dict[str, dict[str, Any]], **settings: Any) -> pd.DataFrame:
    """Return t-SNE coordinates of the same neurons in several models, coloured by their clusters.

    Parameters
    ----------
    tables
        The tables. The store is needed: the readout vectors are in the models' state dicts.
    assignments
        Label to the key of one assignment; the models must share neurons.
    **settings
        Settings of :func:`~december_plugin.plots.tsne_frame`: ``seed``, ``max_neurons_per_session``.

    Returns
    -------
    pandas.DataFrame
        ``label``, ``data_key``, ``unit_id``, ``x``, ``y``, ``group``.

    Raises
    ------
    SettingsError
        If the models have no neuron in common.

    See Also
    --------
    december_plugin.plots.embedding_panels_figure : Draws the frame.
    december_plugin.plots.tsne_frame : The same for any vectors.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import embeddings_frame
    >>> lab = open_lab(schema="retina")
    >>> three = lab.tables.ClusterAssignment & {"seed": 1, "n_clusters_used": 3}
    >>> keys = {key["trainer_fn"].split(".")[-1]: key for key in three.fetch("KEY")}
    >>> frame = embeddings_frame(lab.tables, keys, max_neurons_per_session=20)
    >>> list(frame)
    ['label', 'data_key', 'unit_id', 'x', 'y', 'group']
    >>> frame.groupby(["label", "data_key"]).size()
    label             data_key
    baseline_trainer  first       20
                      second      20
    december_trainer  first       20
                      second      20
    dtype: int64
    """
    from december_plugin.plots import tsne_frame

    assigned = {label: assigned_labels(tables.ClusterAssignment, key) for label, key in assignments.items()}
    ids = _common(list(assigned.values()))
    vectors, groups = {}, {}
    for label, key in assignments.items():
        found = _vectors(tables, key, assigned[label])
        at = match_neurons(ids, assigned[label].ids, common_only=True)[1]
        vectors[label], groups[label] = found[at], assigned[label].labels[at].astype(np.int64)
    neurons = pd.DataFrame({"data_key": ids.data_keys, "unit_id": ids.unit_ids})
    return tsne_frame(vectors, neurons, groups, **settings)


# --- parts of the above ------------------------------------------------------------------------------------------


def _trainings(tables: DecemberTables, restriction: Any) -> pd.DataFrame:
    names = ["trainer_role", "strength_setting", "strength", "gradient_ratio", "pretrain_epochs"]
    frame = frame_of((tables.TrainingSummary & restriction).proj(*names, "validation_correlation"))
    key = list(tables.TrainedModel.primary_key)
    frame = frame.merge(
        frame_of(tables.TestPerformance.proj(test_correlation="single_trial_correlation")), on=key, how="left"
    )
    frame = frame.merge(learning_rates(tables), on=["trainer_fn", "trainer_hash"], how="left")
    numbers = ["strength", "gradient_ratio", "pretrain_epochs", *_SCORES]
    return frame.astype(dict.fromkeys(numbers, float))


def _learning_rate(function: str, config: Any, default: float) -> float:
    settings = config if isinstance(config, dict) else {}
    value = settings.get("lr_after_pretraining") or settings.get("lr_init")
    if value is None:
        return default if function.startswith("december_plugin.") else float("nan")
    return float(value)


def _start(settings: Mapping[str, Any]) -> tuple[int, str]:
    """Return a clustering's random start, and everything else in its settings as text."""
    others = dict(settings)
    start = int(others.pop("seed", 0))
    return start, repr(sorted(others.items()))


def _common(assigned: list[AssignedLabels]) -> NeuronIds:
    ids = assigned[0].ids
    for other in assigned[1:]:
        ids = ids.take(match_neurons(ids, other.ids, common_only=True)[0])
    return ids


def _vectors(tables: DecemberTables, key: dict[str, Any], assigned: AssignedLabels) -> np.ndarray:
    """Return a model's vectors in the space of the clustering, in the order of the assignment."""
    embeddings = tables.vectors.of(key)
    # An assignment has the sessions by name, a model in its own order; neurons are in the session's order in both.
    keys = np.asarray(embeddings.data_keys)
    order = [np.flatnonzero(keys == data_key) for data_key in dict.fromkeys(assigned.ids.data_keys)]
    return np.asarray(embeddings.vectors)[np.concatenate(order)]
