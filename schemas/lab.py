"""Opens a lab's tables: finds the schema, the nnfabrik module, and our tables on it.

Settings are taken from the arguments, then from the environment, then from DataJoint's configuration
(``dj_local_conf.json``); otherwise, the default is used:

=================  =====================  ====================  ==========================================
argument           environment            DataJoint setting     default
=================  =====================  ====================  ==========================================
``schema``         ``DECEMBER_SCHEMA``    ``december.schema``   ``december``
``nnfabrik``       ``DECEMBER_NNFABRIK``  ``december.nnfabrik`` the same schema, with its own nnfabrik tables
=================  =====================  ====================  ==========================================

``nnfabrik`` is the name of the schema that holds the lab's nnfabrik tables, or ``module:NAME``, a Python module with
``Seed``, ``Fabrikant``, ``Model``, ``Dataset``, ``Trainer`` and, if the lab has one, ``TrainedModel``.

A lab's own model functions with a rotation-equivariant core are named in ``DECEMBER_EQUIVARIANT_MODELS``, or
``december.equivariant_models`` of DataJoint's configuration: dotted names, separated by commas, in which ``*`` stands
for anything.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import os
import shlex
from dataclasses import dataclass
from typing import Any

from december_plugin.database.schema_names import NNFABRIK_PLACES, check_schema_name
from december_plugin.errors import SettingsError
from december_plugin.importing import failures

DEFAULT_SCHEMA = "december"
MOST_NAMED = 8  # schemas in a message


@dataclass(frozen=True)
class Lab:
    """The tables of a lab on an open connection."""

    schema: str
    nnfabrik: Any
    tables: Any
    is_embedded: bool


def open_lab(
    *,
    schema: str | None = None,
    nnfabrik: str | None = None,
    create: bool = False,
    read_only: bool = False,
    allow_outdated: bool = False,
) -> Lab:
    """Connect to the lab's server, or to the embedded one, and declare or find the tables.

    If our tables exist already, the nnfabrik tables that they refer to are the default, and no others are accepted.

    Parameters
    ----------
    schema, nnfabrik
        Name of the schema, and of the nnfabrik schema or ``module:NAME``; None uses the settings, see
        :mod:`december_plugin.schemas.lab`.
    create
        Create the tables if the schema has none. Without this, a schema without tables, such as a misspelled one, is an
        error.
    read_only
        The store is not needed, so it may be unreachable, read-only, or another one.
    allow_outdated
        As for :func:`december_plugin.schemas.december_tables`.

    Raises
    ------
    ServerError
        If the server cannot be reached or used.
    SettingsError
        If a schema is one of the server's own or its name cannot be used, if the nnfabrik module cannot be imported or
        lacks a table, if the tables refer to other nnfabrik tables, or if there are none and ``create`` is false.

    See Also
    --------
    december_plugin.schemas.december_tables : Declares the tables on a lab's nnfabrik module.
    december_plugin.results.agreement_table : The first thing to look at.
    december_plugin.database.connect : Connects without opening tables.

    Examples
    --------
    >>> from december_plugin import open_lab
    >>> from december_plugin.results import agreement_table
    >>> lab = open_lab(schema="retina")
    >>> agreement_table(lab.tables, {"n_clusters": 3})[["label", "n_models", "agreement_mean"]].round(2)
          label  n_models  agreement_mean
    0  DECEMber         3            0.68
    1   k-means         3            0.42
    """
    import datajoint as dj

    from december_plugin.database.connection import connect

    database = connect(needs_store=not read_only)
    schema = schema or os.environ.get("DECEMBER_SCHEMA") or dj.config.get("december.schema") or DEFAULT_SCHEMA
    check_schema_name(schema)
    source = nnfabrik or os.environ.get("DECEMBER_NNFABRIK") or dj.config.get("december.nnfabrik")
    if source and not source.startswith("module:"):
        check_schema_name(source, places=NNFABRIK_PLACES)
    from december_plugin.database.store_identity import recognise, store_name_of
    from december_plugin.schemas.setup_lock import one_at_a_time
    from december_plugin.storage.opening import open_store

    # Several processes may create the tables at the same time, as in a job array that begins with `register`.
    alone = one_at_a_time(database.connection, "making december's tables")
    with contextlib.nullcontext() if _is_complete(database.connection, schema) else alone:
        module, tables = _open_tables(database.connection, schema, source, create=create, allow_outdated=allow_outdated)
        store = store_name_of(tables.TrainedModel)
        if not read_only and store in (dj.config.get("stores") or {}):
            models_schema = str(tables.TrainedModel.database)
            recognise(tables.StoreIdentity(), open_store(store), models_schema=models_schema)
    return Lab(schema, module, tables, database.is_embedded)


def _open_tables(
    connection: Any, schema: str, source: str | None, *, create: bool, allow_outdated: bool
) -> tuple[Any, Any]:
    """Return the nnfabrik module and our tables."""
    parent = _nnfabrik_of(connection, schema)
    if parent is None and not create:
        raise SettingsError(no_tables(connection, schema))
    source = source or parent or schema
    from december_plugin.schemas import december_tables
    from december_plugin.schemas.equivariant_models import equivariant_patterns

    module = _import_module(source[len("module:") :]) if source.startswith("module:") else None
    found = module.Model.database if module is not None else source
    if parent is not None and found != parent:
        raise SettingsError(
            f"the tables in {schema!r} belong to the nnfabrik tables in {parent!r}, not to those in {found!r}. Leave "
            "--nnfabrik (or DECEMBER_NNFABRIK, or december.nnfabrik in DataJoint's configuration) out, or name another "
            "--schema."
        )
    if module is None:
        module = _nnfabrik_schema(source)
    own = getattr(module, "TrainedModel", None)
    tables = december_tables(
        schema,
        nnfabrik=module,
        trained_model=own,
        equivariant_models=equivariant_patterns(),
        allow_outdated=allow_outdated,
    )
    return module, tables


def no_tables(connection: Any, schema: str) -> str:
    """Return the message that a schema has no december tables, with the schemas that have some."""
    others = [name for name in _schemas_with_tables(connection) if name != schema]
    hint = ""
    if others:
        close = difflib.get_close_matches(schema, others, n=1, cutoff=0.8)
        meant = f" Did you mean {close[0]!r}?" if close else ""
        others = [*close, *(name for name in others if name not in close)]  # the likely one is always named
        more = f" and {len(others) - MOST_NAMED:,} more" if len(others) > MOST_NAMED else ""
        named = ", ".join(others[:MOST_NAMED])
        hint = f"{meant} There are tables in: {named}{more}. Add --schema {shlex.quote(others[0])}."
    return (
        f"there are no december tables in the schema {schema!r} yet.{hint} `december register` creates them, in Python "
        "open_lab(create=True); check the name (--schema) if they should be there, and that your account may read them."
    )


def _schemas_with_tables(connection: Any) -> list[str]:
    rows = connection.query(
        "SELECT DISTINCT table_schema FROM information_schema.key_column_usage "
        "WHERE table_name = 'training_plan' AND referenced_table_name = 'model' ORDER BY table_schema"
    ).fetchall()
    return [str(name) for (name,) in rows]


def _is_complete(connection: Any, schema: str) -> bool:
    """Return whether the schema has the table that is created last."""
    statement = "SELECT 1 FROM information_schema.tables WHERE table_schema = %s AND table_name = 'store_identity'"
    return connection.query(statement, args=(schema,)).fetchone() is not None


def _nnfabrik_of(connection: Any, schema: str) -> str | None:
    """Return the schema of the nnfabrik tables that the plan in ``schema`` refers to; None without a plan."""
    row = connection.query(
        "SELECT referenced_table_schema FROM information_schema.key_column_usage "
        "WHERE table_schema = %s AND table_name = 'training_plan' AND referenced_table_name = 'model' LIMIT 1",
        args=(schema,),
    ).fetchone()
    return None if row is None else str(row[0])


def _import_module(name: str) -> Any:
    try:
        module = importlib.import_module(name)
    except failures.ANYTHING as error:
        raise SettingsError(f"the nnfabrik module {name!r} cannot be imported: {failures.reason(error)}.") from None
    from december_plugin.schemas.declare import NNFABRIK_TABLES

    missing = [table for table in NNFABRIK_TABLES if not hasattr(module, table)]
    if missing:
        raise SettingsError(f"the module {name!r} has no {missing[0]}; it needs {', '.join(NNFABRIK_TABLES)}.")
    return module


def _nnfabrik_schema(name: str) -> Any:
    """Return nnfabrik's tables in this schema; if it has tables already, those it lacks are nnfabrik's common ones."""
    from nnfabrik.main import my_nnfabrik
    from nnfabrik.utility.dj_helpers import CustomSchema

    schema = CustomSchema(name)
    existing = set(schema.list_tables())
    in_use = "model" in existing
    return my_nnfabrik(
        schema,
        use_common_fabrikant=in_use and "fabrikant" not in existing,
        use_common_seed=in_use and "seed" not in existing,
    )
