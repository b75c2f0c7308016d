"""How well the seeds of every configuration agree, and its models predict, as pandas data frames.

Every function takes what :func:`december_plugin.schemas.december_tables` returned. A *configuration* is everything that
defines an assignment but the seed: dataset, model, trainer and clustering. Restrictions are DataJoint's: a dict, a
string of SQL, a list of keys, or another query. They may name the primary key, ``method`` and ``n_clusters``.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from december_plugin.errors import SettingsError
from december_plugin.evaluation.agreement import MEASURES
from december_plugin.results.labels import in_order, labelled_configurations
from december_plugin.results.queries import (
    SUMMARY_COLUMNS,
    assignments_of,
    configuration_key,
    frame_of,
    known_types_name,
    seed_agreement_of,
    with_columns_of,
)
from december_plugin.schemas.declare import DecemberTables

FIRST_COLUMNS = ("label", "identity", "method", "n_clusters", *SUMMARY_COLUMNS)


def agreement_table(
    tables: DecemberTables,
    restriction: Any = True,
    *,
    types_name: str | None = None,
    measure: str = "adjusted_rand_index",
) -> pd.DataFrame:
    """Return agreement and test correlation of every configuration, DECEMber next to its controls.

    Parameters
    ----------
    tables
        The tables.
    restriction
        Which assignments to take.
    types_name
        Set of known types to compare with. None: the only set, if there is exactly one.
    measure
        Measure of agreement, a column of ``SeedAgreement``.

    Returns
    -------
    pandas.DataFrame
        One row per configuration, by dataset, model and number of clusters, DECEMber first. ``label``, what it is
        called (see :mod:`december_plugin.results.labels`; the same for configurations that differ in the number of
        clusters alone), and ``identity``, what that stands for, by which figures choose colour and marker; ``method``,
        ``n_clusters`` and what the trainer did (``trainer_role`` is "control" for a baseline that ended with the
        pretraining); ``n_models``; ``n_left_out``, how many neurons of a model the clustering leaves out for their test
        correlation, mean over models; agreement between seeds ``agreement_mean``, ``agreement_sd``, ``n_pairs``; with
        known types ``types_agreement_mean``, ``types_agreement_sd`` over models; single-trial correlation on the
        test tier ``test_correlation_mean``, ``test_correlation_sd`` over models; the trainer's comment, and the
        configuration's key. Standard deviations have the divisor n - 1. What is not computed yet is NaN.

    Raises
    ------
    SettingsError
        For an unknown measure or set of types, or if there are several sets and none is named.

    See Also
    --------
    best_configurations : Keeps the configurations that predict equally well.
    null_table : The agreement to expect without clusters.
    december_plugin.plots.agreement_figure : Draws the table.
    december_plugin.evaluation.compare_partitions : The measures of agreement.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import agreement_table
    >>> lab = open_lab(schema="retina")
    >>> table = agreement_table(lab.tables)
    >>> table[["label", "n_clusters", "agreement_mean", "n_pairs", "types_agreement_mean"]].round(2)
          label  n_clusters  agreement_mean  n_pairs  types_agreement_mean
    0   k-means           2            0.47        3                  0.38
    1  DECEMber           3            0.68        3                  0.84
    2   k-means           3            0.42        3                  0.69
    3   k-means           4            0.36        3                  0.64
    """
    if measure not in MEASURES:
        raise SettingsError(f"there is no measure {measure!r}. Allowed: {', '.join(MEASURES)}.")
    types_name = known_types_name(tables, types_name)
    models = assignments_of(tables, restriction)
    types = tables.LabelAgreement & {"types_name": types_name or ""}
    models = with_columns_of(models, types.proj(types_agreement=measure), tables)
    models = with_columns_of(models, tables.ClusterAssignment.proj("n_left_out"), tables)
    models = with_columns_of(models, tables.TestPerformance.proj(test_correlation="single_trial_correlation"), tables)
    key = configuration_key(tables)
    groups = models.groupby(key, sort=False, dropna=False)
    frame = groups[["n_clusters", "method", *SUMMARY_COLUMNS]].first().astype({"method": object})
    # The same setting "auto" leads to another strength for every seed.
    for name in ("strength", "gradient_ratio"):
        frame[name] = groups[name].mean()
    frame["n_models"] = groups.size()
    frame["n_left_out"] = groups["n_left_out"].mean()
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
    return in_order(frame[[*FIRST_COLUMNS, "n_models", "n_left_out", *order, *key]])


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

    See Also
    --------
    agreement_table : All configurations.
    performance_table : How well the models predict.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import best_configurations
    >>> lab = open_lab(schema="retina")
    >>> best = best_configurations(lab.tables, {"n_clusters": 3}, tolerance=0.02)
    >>> best[["label", "agreement_mean", "test_below_best", "rank"]].round(2)
          label  agreement_mean  test_below_best  rank
    0  DECEMber            0.68              0.0     1
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
