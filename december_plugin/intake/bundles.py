"""Brings the result of a bundle into the tables: all of it, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from december_plugin.bundles.archive import BundleError
from december_plugin.bundles.bundle import Bundle, read_bundle
from december_plugin.bundles.weights import same_weights
from december_plugin.errors import SettingsError
from december_plugin.intake.write import ImportResult, files_removed_if_it_fails
from december_plugin.schemas import transfer
from december_plugin.schemas.setup_lock import changing_the_plan
from december_plugin.schemas.stored_models import stored_state_dict
from december_plugin.schemas.training import check_packet, store_trained_model
from december_plugin.sweeps.entries import KINDS
from december_plugin.sweeps.parse import Entry, Sweep
from december_plugin.sweeps.register import check, declare_hidden_tables, fabrikant_for, write_entries

TRAINED = "TrainedModel"


def import_bundle(
    path: str | Path, *, nnfabrik: Any, tables: Any, fabrikant: str | None = None, add_fabrikant: bool = False
) -> ImportResult:
    """Bring the result of a bundle into the tables, unchanged; no code of the file is run.

    Parameters
    ----------
    path
        The bundle.
    nnfabrik
        Module with nnfabrik's tables.
    tables
        What :func:`december_plugin.schemas.december_tables` returned for it.
    fabrikant, add_fabrikant
        As for :func:`december_plugin.sweeps.register.register`.

    Returns
    -------
    ImportResult
        What is new, and what existed already. Importing the same bundle again adds nothing.

    Raises
    ------
    BundleError
        If the file is not a bundle, is of another version, or has no models.
    DamagedError
        If it is damaged.
    SettingsError
        If a model or clusters with the same key exist with other content.

    Notes
    -----
    All rows are written in one transaction, after the whole file was checked. Trainings are not planned, so no worker
    trains them again; a worker that computes with them needs their functions to be allowed.
    """
    with read_bundle(path) as bundle:
        check_importable(bundle, tables)
        try:
            return _write(bundle, nnfabrik=nnfabrik, tables=tables, fabrikant=fabrikant, may_add=add_fabrikant)
        except (BundleError, SettingsError) as error:
            raise type(error)(f"the bundle {path} cannot be imported: {error} Nothing was written.") from error


def check_importable(bundle: Bundle, tables: Any = None) -> None:
    """Raise an error if a bundle is damaged, has no models, or tables that are not among these."""
    if not bundle.has_models:
        raise BundleError(
            f"the bundle {bundle.path} was made without the weights of its models, which the tables need. Read it in "
            "Python, with december_plugin.bundles.read_bundle; or have it made without --no-models."
        )
    bundle.verify()
    if tables is not None:
        known = {*transfer.ENTRIES, TRAINED, *transfer.names_of_rows(tables)}
        unknown = [name for name in bundle.row_names() if name not in known]
        if unknown:
            raise BundleError(
                f"the bundle {bundle.path} has rows of {unknown[0]}, a table that this december does not have. Install "
                "a newer one."
            )


def _write(bundle: Bundle, *, nnfabrik: Any, tables: Any, fabrikant: str | None, may_add: bool) -> ImportResult:
    connection, schema = nnfabrik.Dataset.connection, tables.schema.database
    trained = _rows_with(bundle, TRAINED, [*tables.TrainedModel.primary_key, "score", "output", "training"])
    sweep = _as_sweep(bundle, trained)
    written = ImportResult()
    with changing_the_plan(connection, schema):
        declare_hidden_tables(tables)
        compared = check(sweep, nnfabrik=nnfabrik, tables=tables, fabrikant=fabrikant, may_add=may_add)
        for each in compared.values():
            each.comments.clear()  # those of the tables stay
        with files_removed_if_it_fails() as stored, connection.transaction:
            name = fabrikant_for(nnfabrik, fabrikant, may_add=may_add)
            write_entries(sweep, compared, written, nnfabrik=nnfabrik, fabrikant=name)
            _write_models(bundle, trained, written, stored, table=tables.TrainedModel(), fabrikant=name)
            for rows_of in transfer.names_of_rows(tables):
                rows = bundle.rows(rows_of)
                n_new = transfer.insert_rows(tables, rows_of, rows)
                if rows and "." not in rows_of:
                    written.count(rows_of, new=n_new, of=len(rows))
    return written


def _as_sweep(bundle: Bundle, trained: list[dict[str, Any]]) -> Sweep:
    """Return the entries of a bundle as a sweep; nothing is planned."""
    entries: dict[str, tuple[Entry, ...]] = {}
    for kind in KINDS:
        columns = [f"{kind}_{column}" for column in ("fn", "hash", "config", "comment")]
        rows = _rows_with(bundle, kind.capitalize(), columns)
        for row in rows:
            transfer.check_entry(kind.capitalize(), row)
        entries[kind] = tuple(
            Entry(str(row[f"{kind}_fn"]), row[f"{kind}_config"], str(row[f"{kind}_comment"])) for row in rows
        )
    seeds = tuple(dict.fromkeys(int(row["seed"]) for row in trained))
    return Sweep(
        datasets=entries["dataset"], models=entries["model"], trainers=entries["trainer"], seeds=seeds, clusterings=()
    )


def _rows_with(bundle: Bundle, table: str, columns: Sequence[str]) -> list[dict[str, Any]]:
    rows = bundle.rows(table)
    for row in rows:
        missing = [name for name in columns if name not in row]
        if missing:
            raise BundleError(f"a row of {table} lacks {missing[0]!r}; it was not made by `december bundle`.")
    return rows


def _write_models(
    bundle: Bundle,
    trained: list[dict[str, Any]],
    written: ImportResult,
    stored: list[Callable[[], None]],
    *,
    table: Any,
    fabrikant: str,
) -> None:
    n_new = 0
    for row in trained:
        key = {name: row[name] for name in table.primary_key}
        written.models.append(key)
        weights = bundle.state_dict(int(row["training"]))
        if table & key:
            _check_same(table, key, weights)
            continue
        what = f"what is known of training {row['training']}"
        check_packet(table, row["output"], what=what)
        values = {"score": row["score"], "output": row["output"]}
        stored.append(store_trained_model(table, key, values, weights, fabrikant=fabrikant, allow_direct_insert=True))
        n_new += 1
    written.count(TRAINED, new=n_new, of=len(trained))


def _check_same(table: Any, key: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    if not same_weights(stored_state_dict(table, key), weights):
        raise SettingsError(
            f"the trained model {dict(key)} is there already, with other weights. Delete that one first, or import "
            "into another schema (--schema)."
        )
