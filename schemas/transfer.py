"""Rows of a result: reading them from the tables, and inserting them into those of another machine.

A result is some configurations with all their seeds: the entries of nnfabrik, the trained models, what they were
clustered with, their clusters, and what was computed from these. Comparisons of configurations with each other are not
part of it; workers compute them again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datajoint as dj
import numpy as np
from datajoint.errors import DataJointError

from december_plugin.errors import SettingsError
from december_plugin.schemas.clusters import clustering_hash

ENTRIES = ("Dataset", "Model", "Trainer")
SETTINGS = {
    "AlignmentSettings": "Alignment",
    "Clustering": "ClusterAssignment",
    "KnownTypes": "LabelAgreement",
    "SeedSet": "Consensus",
    "Surrogate": "SurrogateAgreement",
    "Resampling": "WithinModelStability",
    "ClusterConfusionSettings": "ClusterConfusion",
    "MeiSettings": "Mei",
}
"""What computed tables refer to: only entries that one of the result's rows refers to are part of it."""
OF_MODELS = ("TrainingSummary", "TestPerformance", "FeatureCovariance", "Alignment")
OF_CONFIGURATIONS = (
    "ClusterAssignment",
    "SeedAgreement",
    "LabelAgreement",
    "Consensus",
    "ClusterQuality",
    "WithinModelStability",
    "ClusterConfusion",
    "Mei",
    "MeiConfusion",
    "SurrogateAgreement",
)
# Columns that must be equal if a row with the same key exists already: clusters of another are not its result.
COMPARED = {
    "Clustering": ("method", "n_clusters"),
    "KnownTypes": ("type_names",),
    "FeatureCovariance": ("covariance",),
    "Alignment": ("n_orientations",),
    "ClusterAssignment": ("labels_md5",),
}
COMPARED_PARTS = {
    "KnownTypes": ("data_key", "typed_unit_ids", "type_codes"),
    "Alignment": ("data_key", "aligned_unit_ids", "angles"),
}
CIRCULAR = ("angles",)
ROUNDING = (
    0.01  # by which numbers of another machine may differ: angles (radians), others as a share of the largest one
)
NAMES = {"Surrogate": "surrogate_name"}  # that no two rows may share

Row = dict[str, Any]
Keys = Sequence[Mapping[str, Any]]


def entry_rows(nnfabrik: Any, kind: str, keys: Keys) -> list[Row]:
    """Return entries of ``Dataset``, ``Model`` or ``Trainer``: function, hash, settings, comment.

    Raises
    ------
    SettingsError
        If the hash of an entry is not nnfabrik's hash of its settings.
    """
    name = kind.lower()
    columns = [f"{name}_{column}" for column in ("fn", "hash", "config", "comment")]
    wanted = {(key[f"{name}_fn"], key[f"{name}_hash"]): None for key in keys}
    rows = []
    for fn, each in wanted:
        values = (getattr(nnfabrik, kind) & {f"{name}_fn": fn, f"{name}_hash": each}).fetch1(*columns)
        rows.append(_plain(dict(zip(columns, values, strict=True))))
        check_entry(kind, rows[-1])
    return rows


def check_entry(kind: str, row: Mapping[str, Any]) -> None:
    """Raise a :class:`SettingsError` if the hash of an entry is not that of its settings."""
    from nnfabrik.utility.dj_helpers import make_hash

    name = kind.lower()
    if make_hash(row[f"{name}_config"]) != row[f"{name}_hash"]:
        raise SettingsError(
            f"the {name} {row[f'{name}_fn']!r} has the hash {row[f'{name}_hash']!r}, which is not that of its settings."
        )


def result_rows(tables: Any, *, models: Keys, configurations: Keys) -> Iterator[tuple[str, list[Row]]]:
    """Yield the rows of a result by table, parts as ``"Table.Part"``, in the order in which they can be inserted.

    Parameters
    ----------
    tables
        What :func:`december_plugin.schemas.december_tables` returned.
    models
        Keys of trained models.
    configurations
        Keys of assignments without the seed; all seeds that were clustered are meant.
    """
    computed = {name: _rows(getattr(tables, name), models) for name in OF_MODELS}
    computed |= {name: _rows(getattr(tables, name), configurations) for name in OF_CONFIGURATIONS}
    for name, users in SETTINGS.items():
        key = getattr(tables, name).primary_key
        used = {tuple(row[column] for column in key): None for row in computed[users][users]}
        if name == "SeedSet":  # nulls refer to them, too
            nulls = computed["SurrogateAgreement"]["SurrogateAgreement"]
            used |= {tuple(row[column] for column in key): None for row in nulls}
        if name == "AlignmentSettings":  # clusterings refer to them, even if an alignment was deleted
            used |= {
                (each,): None for each in _alignments_of(tables, computed["ClusterAssignment"]["ClusterAssignment"])
            }
        yield from _rows(getattr(tables, name), [dict(zip(key, values, strict=True)) for values in used]).items()
    for found in computed.values():
        yield from found.items()


def _alignments_of(tables: Any, assignments: Sequence[Row]) -> list[str]:
    """Return the hashes of the alignments that the clusterings of assignments request."""
    clusterings = [{"clustering_hash": each} for each in dict.fromkeys(row["clustering_hash"] for row in assignments)]
    return sorted(map(str, (tables.Clustering & clusterings & "alignment_hash IS NOT NULL").fetch("alignment_hash")))


def _rows(table: Any, keys: Keys) -> dict[str, list[Row]]:
    """Return the rows of a table and its parts that belong to one of the keys, without times of insertion."""
    found: dict[str, list[Row]] = {}
    for name, each in _with_parts(table):
        columns = [column for column in each.heading.names if not _is_automatic(each, column)]
        rows: list[Row] = []
        for key in keys:
            rows += map(_plain, (each & dict(key)).fetch(*columns, as_dict=True, order_by="KEY"))
        found[name] = rows
    return found


def _plain(row: Mapping[str, Any]) -> Row:
    """Return a row with Python's numbers; NumPy's are not numbers in JSON, from which hashes are computed."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in row.items()}


def _with_parts(table: Any) -> Iterator[tuple[str, Any]]:
    yield table.__name__, table()
    for name in dir(table):
        part = getattr(table, name) if name[0].isupper() else None
        if isinstance(part, type) and issubclass(part, dj.Part):
            yield f"{table.__name__}.{name}", part()


def _is_automatic(table: Any, column: str) -> bool:
    return "CURRENT_TIMESTAMP" in str(table.heading[column].default or "").upper()


def names_of_rows(tables: Any) -> list[str]:
    """Return the tables and parts of :func:`result_rows`, in its order."""
    order = (*SETTINGS, *OF_MODELS, *OF_CONFIGURATIONS)
    return [name for table in order for name, _ in _with_parts(getattr(tables, table))]


def insert_rows(tables: Any, name: str, rows: Sequence[Row]) -> int:
    """Insert the missing rows of a table or part inside a transaction; return how many were new.

    Parameters
    ----------
    tables
        The tables.
    name
        ``"Table"`` or ``"Table.Part"``, one of :func:`names_of_rows`.
    rows
        As :func:`result_rows` yields them.

    Raises
    ------
    SettingsError
        If rows do not fit the table, or if there are others with the same key.
    """
    table = _table(tables, name)
    key = table.primary_key
    for row in rows:
        _check_columns(table, name, row)
    known = {tuple(each[column] for column in key): each for each in _present(table, name, rows)}
    new = []
    for row in rows:
        there = known.get(tuple(row[column] for column in key))
        if there is None:
            _check_new(table, name, row)
            new.append(row)
        else:
            _check_same(name, row, there)
    try:
        if new:
            table.insert(new, allow_direct_insert=True)
    except (DataJointError, TypeError, ValueError, AssertionError) as error:
        raise SettingsError(f"rows of {name} do not fit the table: {' '.join(str(error).split())[:300]}") from error
    return len(new)


def _table(tables: Any, name: str) -> Any:
    master, _, part = name.partition(".")
    table = getattr(tables, master)
    return getattr(table, part)() if part else table()


def _compared(name: str) -> tuple[str, ...]:
    master, _, part = name.partition(".")
    return (COMPARED_PARTS if part else COMPARED).get(master, ())


def _present(table: Any, name: str, rows: Sequence[Row]) -> list[Row]:
    key, columns = table.primary_key, [*table.primary_key, *_compared(name)]
    columns = list(dict.fromkeys(columns))
    found: list[Row] = []
    # One query for each configuration, or for each row that does not belong to one.
    shared = [column for column in key if column.endswith(("_fn", "_hash"))] or list(key)
    groups = {tuple(row[column] for column in shared): None for row in rows}
    for values in groups:
        found += (table & dict(zip(shared, values, strict=True))).fetch(*columns, as_dict=True)
    return found


def _check_columns(table: Any, name: str, row: Mapping[str, Any]) -> None:
    heading = table.heading
    unknown = [column for column in row if column not in heading.names]
    if unknown:
        raise SettingsError(
            f"rows of {name} have the column {unknown[0]!r}, which the table lacks: they come from a newer version of "
            "december. Install it, and run `december db migrate`."
        )
    missing = [
        column
        for column in heading.names
        if column not in row and not heading[column].nullable and heading[column].default is None
    ]
    if missing:
        raise SettingsError(f"rows of {name} lack the column {missing[0]!r}: they are of another version of december.")


def _check_new(table: Any, name: str, row: Mapping[str, Any]) -> None:
    if (
        name == "Clustering"
        and clustering_hash(row["method"], row["n_clusters"], row["settings"]) != row["clustering_hash"]
    ):
        raise SettingsError(f"the clustering {row['clustering_hash']!r} is not named by the hash of its settings.")
    column = NAMES.get(name)
    if column is not None and table & {column: row[column]}:
        raise SettingsError(f"a row of {name} named {row[column]!r} exists already, with other settings.")


def _check_same(name: str, row: Mapping[str, Any], there: Mapping[str, Any]) -> None:
    for column in _compared(name):
        if not _equal(row[column], there[column], is_circular=column in CIRCULAR):
            key = {each: value for each, value in row.items() if each in there and each not in _compared(name)}
            shown = json.dumps(key, default=str)
            raise SettingsError(
                f"{name} already has a row with the key {shown}, but with another {column}. Delete or rename that one "
                "first, or import into another schema (--schema)."
            )


def _equal(first: Any, other: Any, *, is_circular: bool = False) -> bool:
    """Return whether two values are equal, those with a fraction but for the rounding of another machine."""
    if not (isinstance(first, np.ndarray) or isinstance(other, np.ndarray)):
        return bool(first == other)
    a, b = np.asarray(first), np.asarray(other)
    if a.dtype.kind != "f" or b.dtype.kind != "f" or a.shape != b.shape:
        return bool(np.array_equal(a, b))
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return False
    known = ~np.isnan(a)
    a, b = a[known].astype(np.float64), b[known].astype(np.float64)
    difference, scale = np.abs(a - b), 1.0 if is_circular else np.abs(a).max(initial=0.0)
    if is_circular:
        difference = np.minimum(difference, np.abs(2 * np.pi - difference))
    return bool((difference <= ROUNDING * scale).all())
