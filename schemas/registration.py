"""Writes a sweep into nnfabrik's tables and the training plan; nothing is written twice."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass, field
from typing import Any

from december_plugin.errors import ServerError, SettingsError
from december_plugin.schemas.fabrikants import database_user, fabrikant_of
from december_plugin.schemas.training_plan import combinations
from december_plugin.sweep import Entry, Sweep


@dataclass
class Registered:
    """What a registration wrote, per table: new rows rows that were there already; and the keys of all."""

    new: dict[str, int] = field(default_factory=dict)
    existing: dict[str, int] = field(default_factory=dict)
    plan: list[dict[str, Any]] = field(default_factory=list)
    clusterings: list[dict[str, Any]] = field(default_factory=list)
    surrogates: list[dict[str, Any]] = field(default_factory=list)

    def count(self, table: str, *, is_new: bool) -> None:
        """Count one row."""
        self.new[table] = self.new.get(table, 0) + is_new
        self.existing[table] = self.existing.get(table, 0) + (not is_new)


def current_fabrikant(nnfabrik: Any) -> str:
    """Return the name of the contributor who is logged in, from the ``Fabrikant`` table that ``nnfabrik`` uses.

    Raises
    ------
    ServerError
        If nobody in the table has this database user.
    """
    name = fabrikant_of(nnfabrik.Fabrikant)
    if name is None:
        user = database_user(nnfabrik.Fabrikant)
        raise ServerError(
            f"no entry of {nnfabrik.Fabrikant.full_table_name} has the database user {user!r}. Add yourself once: "
            "Fabrikant().add_entry(name=..., email=..., affiliation=...)."
        )
    return name


def _add_database_user(table: Any) -> None:
    if fabrikant_of(table) is None:
        user = database_user(table)
        table.insert1({"fabrikant_name": user, "email": "", "affiliation": "", "dj_username": user})


def register(
    sweep: Sweep, *, nnfabrik: Any, tables: Any, fabrikant: str | None = None, add_fabrikant: bool = False
) -> Registered:
    """Write the entries of a sweep, and plan every dataset x model x trainer x seed.

    Parameters
    ----------
    sweep
        Checked by :func:`december_plugin.sweep.parse_sweep`.
    nnfabrik
        Module with nnfabrik's tables.
    tables
        What :func:`december_plugin.schemas.december_tables` returned for it.
    fabrikant
        Whose entries they are; None looks up the database user.
    add_fabrikant
        Enter the database user into ``Fabrikant`` if it is not there, as suits a database of one's own. Into an empty
        ``Fabrikant`` the first who registers is entered anyway.

    Raises
    ------
    ServerError
        If nobody in ``Fabrikant`` has this database user.
    SettingsError
        If nnfabrik rejects an entry.

    Notes
    -----
    All rows are written in one transaction: after an error nothing of the sweep is there. The tables that DataJoint
    would make at their first use are made here, because workers may not.
    """
    declare_hidden_tables(tables)
    if fabrikant is None and (add_fabrikant or not len(nnfabrik.Fabrikant())):
        _add_database_user(nnfabrik.Fabrikant())
    fabrikant = fabrikant or current_fabrikant(nnfabrik)
    written = Registered()
    with nnfabrik.Dataset.connection.transaction:
        datasets = [_add(nnfabrik.Dataset(), "dataset", entry, fabrikant, written) for entry in sweep.datasets]
        models = [_add(nnfabrik.Model(), "model", entry, fabrikant, written) for entry in sweep.models]
        trainers = [_add(nnfabrik.Trainer(), "trainer", entry, fabrikant, written) for entry in sweep.trainers]
        for seed in sweep.seeds:
            _insert(nnfabrik.Seed(), "Seed", {"seed": seed}, written)
        written.plan = combinations(datasets=datasets, models=models, trainers=trainers, seeds=sweep.seeds)
        plan = tables.TrainingPlan()
        before = len(plan)
        plan.insert(written.plan, skip_duplicates=True)
        written.new["TrainingPlan"] = len(plan) - before
        written.existing["TrainingPlan"] = len(written.plan) - written.new["TrainingPlan"]
        for clustering in sweep.clusterings:
            before = len(tables.Clustering())
            key = tables.Clustering().add_entry(
                clustering.method, clustering.n_clusters, skip_duplicates=True, **clustering.settings
            )
            written.clusterings.append(key)
            written.count("Clustering", is_new=len(tables.Clustering()) > before)
        for surrogate in sweep.surrogates:
            before = len(tables.Surrogate())
            written.surrogates.append(tables.Surrogate().add_entry(**asdict(surrogate), skip_duplicates=True))
            written.count("Surrogate", is_new=len(tables.Surrogate()) > before)
    return written


def declare_hidden_tables(tables: Any) -> None:
    """Make DataJoint's own tables of reservations and events (``~jobs``, ``~log``) where they are not there yet."""
    for table in tables.computed:
        schema = table.connection.schemas[table.database]
        for hidden in (schema.jobs, schema.log):
            if not hidden.is_declared:
                raise ServerError(
                    f"The table {hidden.full_table_name} is not there and could not be made: the database user "
                    f"{database_user(table)!r} may not create tables. Register with the admin role (docs/security.md)."
                )


def _add(table: Any, kind: str, entry: Entry, fabrikant: str, written: Registered) -> dict[str, Any]:
    before = len(table)
    arguments = {
        f"{kind}_fn": entry.fn,
        f"{kind}_config": entry.config,
        f"{kind}_comment": entry.comment,
        f"{kind}_fabrikant": fabrikant,
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        key = table.add_entry(**arguments, skip_duplicates=True)
    if key is None:
        reason = "; ".join(str(warning.message) for warning in caught)
        raise SettingsError(f"nnfabrik's {kind} table rejected {entry.fn!r}: {reason}")
    written.count(type(table).__name__, is_new=len(table) > before)
    return key


def _insert(table: Any, name: str, row: dict[str, Any], written: Registered) -> None:
    is_new = not len(table & row)
    if is_new:
        table.insert1(row)
    written.count(name, is_new=is_new)
