"""Brings the tables of an earlier version up to date, in place, without losing a result.

The tables themselves show what is outdated, by comparison with their definitions: columns that are missing or too
narrow, and keys that have changed. A migration that was interrupted continues when it is run again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import datajoint as dj
from datajoint.declare import prepare_declare

from december_plugin.errors import OutdatedSchemaError
from december_plugin.schemas.seed_sets import set_digest

# DataJoint does not list tables whose name begins with this.
ASIDE = "~before_"
SET_KEY = "seed_set"
# Columns that were added to tables, which cannot be used without them.
ADDED_COLUMNS = {
    "__cluster_assignment__session": "margins",
    "#surrogate": "surrogate_clusterings",
    "#clustering": "alignment_hash",  # was added after space, normalize and minimum_test_correlation
    "__cluster_assignment": "n_left_out",
    "__training_summary": "normalize_trained",  # was added along with space_trained
    "known_types": "types_version",
    "__surrogate_agreement": "null_valleys",  # was added along with the other columns of valleys
    "pool_worker": "gpu_workers",
}
# Columns whose earlier type has become too narrow, with that type.
NARROW_COLUMNS = {"neuron_cluster__neuron": ("label", "smallint")}  # unsigned: no room for -1, the lack of a cluster


@dataclass(frozen=True)
class Change:
    """One step of a migration.

    Attributes
    ----------
    table
        Name of the table in the database.
    what
        The change in words.
    apply
        Makes the change.
    """

    table: str
    what: str
    apply: Callable[[], None]


def outdated(tables: Any) -> list[Change]:
    """Return the steps that bring the tables up to date, in the order in which they must be taken.

    Parameters
    ----------
    tables
        What :func:`december_plugin.schemas.december_tables` returned.
    """
    stale = _other_keys(tables.schema)
    changes = [_REKEY[table.__name__](tables, table) for table in _per_set(tables) if table.table_name in stale]
    for table in _declared(tables):
        if not table.table_name.startswith(tuple(stale) or ("-",)):
            changes.extend(_other_columns(tables, table))
    return changes


def check_current(tables: Any) -> None:
    """Raise an :class:`OutdatedSchemaError` if the tables cannot be used before they are brought up to date."""
    if _other_keys(tables.schema) or _has_other_columns(tables.schema):
        name = tables.schema.database
        raise OutdatedSchemaError(
            f"the tables in the schema {name!r} were made by an earlier version of december_plugin. `december db "
            f"migrate --schema {name}` brings them up to date, with an account that may alter tables; no result is "
            "lost."
        )


def _per_set(tables: Any) -> tuple[Any, ...]:
    return tables.Consensus, tables.SurrogateAgreement


def _other_keys(schema: Any) -> list[str]:
    """Return the names of tables whose keys have changed, or whose rows are still set aside, with one query."""
    names = ("__consensus", "__surrogate_agreement")
    rows = schema.connection.query(
        "SELECT table_name, MAX(column_name = %s) FROM information_schema.columns WHERE table_schema = %s AND "
        "table_name IN (%s, %s, %s) GROUP BY table_name",
        args=(SET_KEY, schema.database, *names, ASIDE + names[1]),
    ).fetchall()
    current = {str(name): bool(has_key) for name, has_key in rows}
    return [name for name in names if not current.get(name, True) or ASIDE + name in current]


def _has_other_columns(schema: Any) -> bool:
    """Return whether a table is older than one of its columns, or its width, with one query."""
    names = (*ADDED_COLUMNS, *NARROW_COLUMNS)
    there = schema.connection.query(
        "SELECT table_name, column_name, data_type FROM information_schema.columns WHERE table_schema = %s AND "
        f"table_name IN ({', '.join(['%s'] * len(names))})",
        args=(schema.database, *names),
    ).fetchall()
    types = {(str(table), str(column)): str(of) for table, column, of in there}
    made = {table for table, _ in types}
    is_missing = any((table, column) not in types for table, column in ADDED_COLUMNS.items() if table in made)
    return is_missing or any(types.get((table, column)) == of for table, (column, of) in NARROW_COLUMNS.items())


def _declared(tables: Any) -> Iterator[Any]:
    """Yield our tables and their parts; TrainedModel is nnfabrik's, or the lab's own."""
    for name, table in tables.context().items():
        if name != "TrainedModel":
            yield table
            yield from (part for part in vars(table).values() if isinstance(part, type) and issubclass(part, dj.Part))


def _other_columns(tables: Any, table: Any) -> list[Change]:
    """Return the steps that add the columns that a table lacks, and widen those that are too narrow."""
    context = {**vars(tables.nnfabrik), **tables.context(), "master": getattr(table, "_master", None)}
    _, _, columns, foreign_keys, *_ = prepare_declare(table.definition, context)
    there = table().heading.attributes
    narrow, narrow_type = NARROW_COLUMNS.get(table.table_name, ("", ""))
    changes = []
    for sql in columns:
        name = re.match(r"`(\w+)`", sql.strip())
        if name is None:
            continue
        if name[1] not in there:
            added = [f"COLUMN {sql}", *(each for each in foreign_keys if each.startswith(f"FOREIGN KEY (`{name[1]}`)"))]
            statement = f"ALTER TABLE {table.full_table_name} {', '.join(f'ADD {each}' for each in added)}"
            changes.append(Change(table.table_name, f"gets the column {name[1]}", _statement(tables.schema, statement)))
        elif name[1] == narrow and there[narrow].type.startswith(narrow_type):
            statement = f"ALTER TABLE {table.full_table_name} MODIFY COLUMN {sql}"
            changes.append(
                Change(table.table_name, f"gets more room in the column {narrow}", _statement(tables.schema, statement))
            )
    return changes


def _statement(schema: Any, statement: str) -> Callable[[], None]:
    return lambda: schema.connection.query(statement)


def _consensus(tables: Any, table: Any) -> Change:
    def apply() -> None:
        for part in (table.Cluster, table.Session, table):
            tables.schema.connection.query(f"DROP TABLE IF EXISTS {part.full_table_name}")

    return Change(table.table_name, "gets another key; workers compute its rows again, which takes seconds", apply)


def _surrogate_agreement(tables: Any, table: Any) -> Change:
    """Set the table aside; :func:`finish` copies its rows into the new one."""

    def apply() -> None:
        if SET_KEY not in table().primary_key:
            database = tables.schema.database
            tables.schema.connection.query(
                f"RENAME TABLE {table.full_table_name} TO `{database}`.`{ASIDE}{table.table_name}`"
            )

    return Change(table.table_name, "gets another key; its rows are kept", apply)


_REKEY = {"Consensus": _consensus, "SurrogateAgreement": _surrogate_agreement}


def finish(tables: Any) -> int:
    """Copy what was set aside into the tables as they are declared now; return the number of new rows.

    Parameters
    ----------
    tables
        The tables, declared again after the steps of :func:`outdated`.
    """
    table = tables.SurrogateAgreement
    aside = dj.FreeTable(tables.schema.connection, f"`{tables.schema.database}`.`{ASIDE}{table.table_name}`")
    if not aside.is_declared:
        return 0
    n_before = len(table())
    for key in aside.fetch("KEY"):
        row = (aside & key).fetch1()
        members = dict(zip((int(seed) for seed in row["seeds"]), row["labels_md5s"], strict=True))
        new = {**row, SET_KEY: set_digest(members), "largest_seed": max(members), "smallest_seed": min(members)}
        table().enter_set(new)
        new = {name: value for name, value in new.items() if name in table().heading.names}
        table.insert1(new, skip_duplicates=True, allow_direct_insert=True)
    tables.schema.connection.query(f"DROP TABLE {aside.full_table_name}")
    return len(table()) - n_before
