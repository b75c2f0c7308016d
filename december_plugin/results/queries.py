"""Shared by all queries of the filled tables: which assignments a restriction selects, and what belongs to them.

A *configuration* is everything that defines an assignment but the seed: dataset, model, trainer and clustering.
Restrictions are DataJoint's: a dict, a string of SQL, a list of keys, or another query. They may name the primary key,
``method`` and ``n_clusters``.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from december_plugin.clustering.methods import DECEMBER, FOUND
from december_plugin.errors import SettingsError
from december_plugin.findings.summaries import pair_summary
from december_plugin.schemas.declare import DecemberTables
from december_plugin.schemas.restrictions import restricted

SUMMARY_COLUMNS = ("trainer_role", "strength_setting", "strength", "gradient_ratio", "locked_in", "pretrain_epochs")


def configuration_key(tables: DecemberTables) -> list[str]:
    """Return the attributes that make a configuration: the primary key of ``ClusterAssignment`` without the seed."""
    return [name for name in tables.ClusterAssignment.primary_key if name != "seed"]


def frame_of(query: Any, *attributes: str) -> pd.DataFrame:
    """Return a query as a frame that has its columns even without rows."""
    return pd.DataFrame(query.fetch(*attributes, as_dict=True), columns=list(attributes) or list(query.heading.names))


def selected_assignments(tables: DecemberTables, restriction: Any) -> Any:
    """Return the assignments that a restriction leaves, with ``method`` and ``n_clusters``, as a query."""
    joined = tables.ClusterAssignment.proj(n_clusters="n_clusters_used") * tables.Clustering.proj("method")
    return restricted(joined, restriction)


def assignments_of(tables: DecemberTables, restriction: Any) -> pd.DataFrame:
    """Return one row per assignment: key, ``method``, ``n_clusters`` and what the trainer did.

    If a method finds the number of clusters, which may differ between seeds, ``n_clusters`` is the median over the
    seeds of the configuration (the smaller one of two in the middle), so that the configuration has one place.
    """
    query = tables.TrainingSummary.proj(*SUMMARY_COLUMNS)
    assignments = frame_of(selected_assignments(tables, restriction))
    is_found = assignments["clustering_hash"].isin(_finding_clusterings(tables))
    if is_found.any():
        found = assignments[is_found].groupby(configuration_key(tables), sort=False)["n_clusters"]
        assignments.loc[is_found, "n_clusters"] = found.transform(lambda counts: counts.quantile(interpolation="lower"))
    return with_columns_of(assignments, query, tables)


def _finding_clusterings(tables: DecemberTables) -> set[str]:
    """Return the hashes of the clusterings whose method finds the number of clusters."""
    return set((tables.Clustering & {"n_clusters": FOUND} & f"method <> '{DECEMBER}'").fetch("clustering_hash"))


def with_columns_of(assignments: pd.DataFrame, query: Any, tables: DecemberTables) -> pd.DataFrame:
    """Return assignments with the columns of a query, NaN where it has no row."""
    other = frame_of(query)
    shared = [name for name in tables.ClusterAssignment.primary_key if name in other.columns]
    return assignments.merge(other.drop(columns="types_name", errors="ignore"), on=shared, how="left")


def seed_agreement_of(tables: DecemberTables, assignments: pd.DataFrame, measure: str) -> pd.DataFrame:
    """Return the agreement between the seeds of every configuration, over pairs of which both seeds are selected.

    Parameters
    ----------
    tables
        The tables.
    assignments
        One row each, with the key.
    measure
        A column of ``SeedAgreement``.

    Returns
    -------
    pandas.DataFrame
        The configuration's key, ``agreement_mean``, ``agreement_sd`` (divisor n - 1) and ``n_pairs``; configurations
        without a pair have no row.
    """
    key = configuration_key(tables)
    pairs = frame_of(tables.SeedAgreement().proj(agreement=measure))
    for seed in ("seed_a", "seed_b"):
        selected = assignments[[*key, "seed"]].rename(columns={"seed": seed})
        pairs = pairs.merge(selected, on=[*key, seed])
    return pair_summary(pairs, key)


def one_configuration(tables: DecemberTables, restriction: Any, *, n_seeds: int = 1) -> list[dict[str, Any]]:
    """Return the keys of the assignments that a restriction leaves, by seed.

    Raises
    ------
    SettingsError
        If they are not of one configuration, or fewer than ``n_seeds`` (1 or 2).
    """
    keys = selected_assignments(tables, restriction).fetch("KEY", order_by="seed")
    names = configuration_key(tables)
    configurations = {tuple(key[name] for name in names) for key in keys}
    if len(configurations) != 1 or len(keys) < n_seeds:
        needed = "at least two seeds" if n_seeds > 1 else "one assignment, or the seeds"
        raise SettingsError(
            f"the restriction leaves {len(keys)} assignments of {len(configurations)} configurations; it must leave "
            f"{needed} of one configuration. agreement_table() lists the configurations with their keys."
        )
    return keys


def one_assignment(tables: DecemberTables, restriction: Any) -> dict[str, Any]:
    """Return the key of the assignment that a restriction leaves, or raise a :class:`SettingsError`."""
    keys = selected_assignments(tables, restriction).fetch("KEY", limit=2)
    if len(keys) != 1:
        found = "no assignment" if not keys else "more than one assignment"
        raise SettingsError(f"the restriction leaves {found}; it must leave exactly one. Add the seed, or use a key.")
    return keys[0]


def known_types_name(tables: DecemberTables, types_name: str | None) -> str | None:
    """Return the name of the set of known types: the given one, else that of the only set; None if there is no set.

    Raises
    ------
    SettingsError
        If no set has this name, or if there are several and none is named.
    """
    known = sorted(map(str, tables.KnownTypes.fetch("types_name")))
    if types_name is None:
        if len(known) > 1:
            raise SettingsError(
                f"there are several sets of known types: {', '.join(known)}. Name one of them with --types, in Python "
                "with types_name."
            )
        return known[0] if known else None
    if types_name not in known:
        raise SettingsError(f"there are no known types named {types_name!r}. Known: {', '.join(known) or 'none'}.")
    return types_name


def current_labels(tables: DecemberTables, models: pd.DataFrame) -> dict[tuple[Any, ...], str]:
    """Return the digests of the current labels of the selected assignments, by configuration and seed."""
    names = [*configuration_key(tables), "seed"]
    digests = models[names].merge(frame_of(tables.ClusterAssignment.proj("labels_md5")), on=names)
    return {tuple(row): digest for *row, digest in digests[[*names, "labels_md5"]].itertuples(index=False)}
