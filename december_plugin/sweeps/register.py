"""Writes a sweep into nnfabrik's tables and the training plan; nothing is written twice."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from december_plugin.clustering.methods import alignment_recipe
from december_plugin.errors import ServerError, SettingsError
from december_plugin.schemas.alignment import alignment_hash
from december_plugin.schemas.nulls import surrogate_row
from december_plugin.schemas.setup_lock import changing_the_plan
from december_plugin.schemas.training import combinations, database_user, fabrikant_of
from december_plugin.sweeps.entries import KINDS, Comment, Compared, SameComment, compare, write
from december_plugin.sweeps.parse import Sweep
from december_plugin.sweeps.relocate import as_registered
from december_plugin.sweeps.source import SweepError
from december_plugin.text.yaml_reader import Mistake

NAME_LENGTH = 32  # characters of a Fabrikant


@dataclass
class RegistrationResult:
    """What a registration wrote, per table: new and existing rows, and the keys of all.

    Attributes
    ----------
    new, existing
        Number of rows, by table.
    plan, clusterings, surrogates, resamplings, cluster_confusions, exciting_images
        Keys.
    comments
        Comments that differ between the sweep and the tables; those without ``kept_because`` were replaced.
    same_comments
        New entries with the comment of earlier ones.
    """

    new: dict[str, int] = field(default_factory=dict)
    existing: dict[str, int] = field(default_factory=dict)
    plan: list[dict[str, Any]] = field(default_factory=list)
    clusterings: list[dict[str, Any]] = field(default_factory=list)
    surrogates: list[dict[str, Any]] = field(default_factory=list)
    resamplings: list[dict[str, Any]] = field(default_factory=list)
    cluster_confusions: list[dict[str, Any]] = field(default_factory=list)
    exciting_images: list[dict[str, Any]] = field(default_factory=list)
    comments: list[Comment] = field(default_factory=list)
    same_comments: list[SameComment] = field(default_factory=list)

    def count(self, table: str, *, new: int, of: int) -> None:
        """Note how many rows of a table are new."""
        self.new[table], self.existing[table] = new, of - new

    def lines(self) -> list[str]:
        """Return a line for each table: how many rows are new, and how many existed already."""
        width = max(14, *map(len, self.new))
        return [f"  {name:<{width}}{self.new[name]:>5} new{self.existing[name]:>6} existing" for name in self.new]


def current_fabrikant(nnfabrik: Any) -> str:
    """Return the name of the contributor who is logged in, from the ``Fabrikant`` table that ``nnfabrik`` uses.

    Raises
    ------
    ServerError
        If no contributor in the table has this database user.
    """
    name = fabrikant_of(nnfabrik.Fabrikant)
    if name is None:
        user = database_user(nnfabrik.Fabrikant)
        raise ServerError(
            f"no entry of {nnfabrik.Fabrikant.full_table_name} has the database user {user!r}. Add yourself once: "
            "Fabrikant().add_entry(name=..., email=..., affiliation=...)."
        )
    return name


def check_fabrikant(nnfabrik: Any, name: str | None, *, may_add: bool) -> str | None:
    """Return the owner of a sweep's entries, as named in the ``Fabrikant`` table; None if it must be added.

    Parameters
    ----------
    nnfabrik
        Module with nnfabrik's tables.
    name
        The requested name; None: the database user.
    may_add
        Whether unknown contributors may be added, as is appropriate for your own database.

    Raises
    ------
    SettingsError
        If the name is not in the table and may not be added, or is not allowed.
    ServerError
        If no contributor in the table has this database user, and none may be added.
    """
    table = nnfabrik.Fabrikant()
    known = [str(each) for each in table.fetch("fabrikant_name", order_by="fabrikant_name")]
    may_add = may_add or not known
    if name is None:
        found = fabrikant_of(table)
        return found if found is not None or may_add else current_fabrikant(nnfabrik)
    if not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
        raise SettingsError(f"--fabrikant is {name!r}; it must be a name of 1 to {NAME_LENGTH} printable characters.")
    # As the server compares them: regardless of case.
    same = [str(each) for each in (table & {"fabrikant_name": name}).fetch("fabrikant_name")]
    if not same and not may_add:
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        suggestion = f"Did you mean {close[0]!r}? " if close else ""
        raise SettingsError(
            f"there is no Fabrikant {name!r} in {table.full_table_name}. {suggestion}Known: {', '.join(known)}. Add "
            "one, in Python: from december_plugin import open_lab; "
            f"open_lab().nnfabrik.Fabrikant().add_entry({name!r}, email=..., affiliation=..., dj_username=...)."
        )
    return same[0] if same else None


def fabrikant_for(nnfabrik: Any, name: str | None, *, may_add: bool) -> str:
    """Return the owner of a sweep's entries, see :func:`check_fabrikant`; add it if necessary."""
    return check_fabrikant(nnfabrik, name, may_add=may_add) or _enter_fabrikant(nnfabrik, name)


def _enter_fabrikant(nnfabrik: Any, name: str | None) -> str:
    """Add a name, for the database user if that has no entry yet; or the database user itself."""
    table = nnfabrik.Fabrikant()
    user = database_user(table)
    row = {"fabrikant_name": name or user[:NAME_LENGTH], "email": "", "affiliation": ""}
    table.insert1({**row, "dj_username": user if fabrikant_of(table) is None else ""})
    return str(row["fabrikant_name"])


def surrogate_mistakes(sweep: Sweep, *, tables: Any) -> list[Mistake]:
    """Return a mistake for each null of the sweep whose name belongs to other settings in the tables."""
    found = []
    for position, surrogate in enumerate(sweep.surrogates):
        row = surrogate_row(**asdict(surrogate))
        stored = (tables.Surrogate & {"surrogate_name": row["surrogate_name"]}).fetch("surrogate_hash")
        if len(stored) and tables.Surrogate().stored_key(row) is None:
            text = f"there are surrogates named {row['surrogate_name']!r} with other settings. Choose another name."
            found.append(Mistake(f"surrogates, entry {position + 1}: {text}", ("surrogates", position, "name")))
    return found


def check(sweep: Sweep, *, nnfabrik: Any, tables: Any, fabrikant: str | None, may_add: bool) -> dict[str, Compared]:
    """Compare a sweep with the tables as :func:`register` does before it writes, and write nothing.

    Raises
    ------
    SettingsError, ServerError
        What :func:`register` would raise.
    """
    name = check_fabrikant(nnfabrik, fabrikant, may_add=may_add)
    if mistakes := surrogate_mistakes(sweep, tables=tables):
        raise SweepError(mistakes, sweep.source)
    return compare(sweep, nnfabrik=nnfabrik, fabrikant=name or fabrikant)


def register(
    sweep: Sweep, *, nnfabrik: Any, tables: Any, fabrikant: str | None = None, add_fabrikant: bool = False
) -> RegistrationResult:
    """Write the entries of a sweep, and plan every dataset x model x trainer x seed.

    Parameters
    ----------
    sweep
        Checked by :func:`december_plugin.sweeps.parse.parse_sweep`.
    nnfabrik
        Module with nnfabrik's tables.
    tables
        What :func:`december_plugin.schemas.december_tables` returned for it.
    fabrikant
        Owner of the entries; None looks up the database user.
    add_fabrikant
        Add this name, or the database user, to ``Fabrikant`` if it is missing, as is appropriate for your own database.
        The first contributor is always added to an empty ``Fabrikant``.

    Raises
    ------
    ServerError
        If no contributor in ``Fabrikant`` has this database user.
    SettingsError
        If there is no such ``Fabrikant``, a null has the name of another, or nnfabrik rejects an entry.

    Notes
    -----
    All rows are written in one transaction: after an error, nothing of the sweep is stored. Tables that DataJoint would
    create at their first use are created here, because workers may not. Simultaneous registrations wait for each other.
    """
    connection, schema = nnfabrik.Dataset.connection, tables.schema.database
    with changing_the_plan(connection, schema):
        declare_hidden_tables(tables)
        sweep = as_registered(sweep, nnfabrik=nnfabrik, tables=tables)
        found = check(sweep, nnfabrik=nnfabrik, tables=tables, fabrikant=fabrikant, may_add=add_fabrikant)
        with connection.transaction:
            name = fabrikant_for(nnfabrik, fabrikant, may_add=add_fabrikant)
            return _write(sweep, found, nnfabrik=nnfabrik, tables=tables, fabrikant=name)


def _write(
    sweep: Sweep, found: dict[str, Compared], *, nnfabrik: Any, tables: Any, fabrikant: str
) -> RegistrationResult:
    written = RegistrationResult()
    write_entries(sweep, found, written, nnfabrik=nnfabrik, fabrikant=fabrikant)
    keys = {kind: _different(found[kind].keys) for kind in KINDS}
    written.plan = combinations(
        datasets=keys["dataset"], models=keys["model"], trainers=keys["trainer"], seeds=sweep.seeds
    )
    n_new = tables.TrainingPlan().insert_product(
        datasets=keys["dataset"], models=keys["model"], trainers=keys["trainer"], seeds=sweep.seeds
    )
    written.count("TrainingPlan", new=n_new, of=len(written.plan))
    write_evaluations(sweep, written, tables=tables)
    return written


def write_entries(
    sweep: Sweep, found: dict[str, Compared], written: RegistrationResult, *, nnfabrik: Any, fabrikant: str
) -> None:
    """Write the datasets, models, trainers and seeds of a sweep, inside a transaction.

    Parameters
    ----------
    sweep
        The sweep.
    found
        What :func:`check` returned for it.
    written
        Records what was written.
    nnfabrik, fabrikant
        As for :func:`register`.
    """
    for kind, compared in found.items():
        write(compared, nnfabrik=nnfabrik, fabrikant=fabrikant)
        n_entries = len({tuple(key.values()) for key in compared.keys})
        written.count(kind.capitalize(), new=len(compared.new), of=n_entries)
        written.comments += compared.comments
        written.same_comments += compared.same_comments
    known = {int(seed) for seed in nnfabrik.Seed.fetch("seed")}
    new_seeds = [{"seed": seed} for seed in sweep.seeds if seed not in known]
    nnfabrik.Seed().insert(new_seeds)
    written.count("Seed", new=len(new_seeds), of=len(sweep.seeds))


def write_evaluations(sweep: Sweep, written: RegistrationResult, *, tables: Any) -> None:
    """Write what a sweep asks for with trained models, inside a transaction; ``written`` records what is new."""
    if sweep.clusterings:
        _write_clusterings(sweep, tables, written)
    written.surrogates = _write_asked(sweep.surrogates, tables.Surrogate(), written)
    written.resamplings = _write_asked(sweep.stability, tables.Resampling(), written)
    written.cluster_confusions = _write_asked(sweep.cluster_confusion, tables.ClusterConfusionSettings(), written)
    written.exciting_images = _write_asked(sweep.exciting_images, tables.MeiSettings(), written)


def _write_asked(asked: Sequence[Any], table: Any, written: RegistrationResult) -> list[dict[str, Any]]:
    """Write the settings of the requested evaluations, and return their keys."""
    if not asked:
        return []
    before = len(table)
    keys = [table.add_entry(**asdict(settings), skip_duplicates=True) for settings in asked]
    written.count(type(table).__name__, new=len(table) - before, of=len(keys))
    return keys


def _write_clusterings(sweep: Sweep, tables: Any, written: RegistrationResult) -> None:
    table, alignments = tables.Clustering(), tables.AlignmentSettings()
    asked = {alignment_hash(recipe) for entry in sweep.clusterings if (recipe := alignment_recipe(entry.settings))}
    n_before = len(alignments)
    known = set(table.fetch("clustering_hash"))
    for entry in sweep.clusterings:
        key = table.add_entry(entry.method, entry.n_clusters, skip_duplicates=True, **entry.settings)
        written.clusterings.append(key)
    if asked:
        written.count("AlignmentSettings", new=len(alignments) - n_before, of=len(asked))
    hashes = {key["clustering_hash"] for key in written.clusterings}
    written.count("Clustering", new=len(hashes - known), of=len(hashes))


def _different(keys: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    return [dict(pairs) for pairs in dict.fromkeys(tuple(key.items()) for key in keys)]


def declare_hidden_tables(tables: Any) -> None:
    """Create DataJoint's own tables of reservations and events (``~jobs``, ``~log``) if they are missing."""
    for table in tables.computed:
        schema = table.connection.schemas[table.database]
        for hidden in (schema.jobs, schema.log):
            if not hidden.is_declared:
                raise ServerError(
                    f"The table {hidden.full_table_name} is missing and could not be created: the database user "
                    f"{database_user(table)!r} may not create tables. Register with the admin role (docs/security.md)."
                )
