"""Whether a store is the one that a schema's models are in: its mark must have the identity that the schema remembers.

A folder where a disk should be mounted looks like an empty store, and so does one created again after a store had
been moved. Models that are written there are missing as soon as the right one is back. So each store has an
identity, in a file (:data:`december_plugin.storage.base.MARK`), and each schema remembers in its table
``StoreIdentity`` which store it uses. The first account that may write into that table, such as the admin's with
``december register``, gives an unmarked store an identity; other accounts leave it unchanged.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from december_plugin.storage.attachments import attachment_path, subfolding_of
from december_plugin.storage.base import UNREADABLE, ObjectStore
from december_plugin.storage.folder import FolderStore
from december_plugin.storage.settings import DEFAULT_STORE

TABLE = "store_identity"
N_LOOKED_FOR = 5  # files of the newest rows, in a store without a mark
LOCK_SECONDS = 10  # for another process that gives the store its identity at the moment


def store_name_of(trained_model: Any) -> str:
    """Return DataJoint's name of the store in which a table of trained models keeps them."""
    return str(getattr(trained_model, "storage", DEFAULT_STORE))


def known_identity(connection: Any, schema: str, store: str) -> str:
    """Return the identity of the store that a schema uses, or an empty string if it does not remember any.

    Parameters
    ----------
    connection
        A DataJoint connection.
    schema
        Schema of december's tables; without this table, as in older schemas, no store is known.
    store
        DataJoint's name of the store.
    """
    if (schema, TABLE) not in _tables(connection, TABLE):
        return ""
    row = connection.query(f"SELECT store_id FROM `{schema}`.`{TABLE}` WHERE store_name = %s", args=(store,)).fetchone()
    return "" if row is None else str(row[0])


def was_used(connection: Any, store: str, place: str, *, by_anybody: bool) -> bool:
    """Return whether some schema on the server has used this store at this place.

    Parameters
    ----------
    connection
        A DataJoint connection.
    store, place
        DataJoint's name of the store, and its folder.
    by_anybody
        Count every schema that has files in a store of this name: on an embedded server, they all belong to one user.
    """
    for schema, table in _tables(connection, TABLE):
        query = f"SELECT 1 FROM `{schema}`.`{table}` WHERE store_name = %s AND store_place = %s LIMIT 1"
        if connection.query(query, args=(store, place)).fetchone():
            return True
    return by_anybody and any(
        connection.query(f"SELECT 1 FROM `{schema}`.`{table}` LIMIT 1").fetchone()
        for schema, table in _tables(connection, f"~external_{store}")
    )


def recognise(table: Any, store: ObjectStore, *, models_schema: str) -> None:
    """Make sure that a store is the one that the schema remembers, and let the schema remember it if it is new.

    Parameters
    ----------
    table
        ``StoreIdentity`` of the schema.
    store
        The store, which can be used.
    models_schema
        The schema of the trained models: an unmarked store that lacks their files is not theirs.

    Raises
    ------
    StoreUnavailableError
        It is not that store, or cannot be used.
    """
    connection, schema = table.connection, str(table.database)
    known = known_identity(connection, schema, store.name)
    if known:
        store.identity = known
        store.check_identity()
        return
    with _lock(connection, store.name) as is_mine:
        if is_mine:
            _introduce(table, store, models_schema)


def accept(table: Any, store: ObjectStore) -> str:
    """Make the schema remember the store as it is now, and give it a mark if it has none; return its identity.

    Parameters
    ----------
    table
        ``StoreIdentity`` of the schema.
    store
        The store, which can be used.
    """
    connection, schema = table.connection, str(table.database)
    store.identity = ""
    found = store.read_mark()
    if found is None or found == UNREADABLE:
        found = known_identity(connection, schema, store.name) or uuid.uuid4().hex
        store.write_mark(found)
    row = _row(store, found)
    table.insert1(row, replace=True)
    return found


def _introduce(table: Any, store: ObjectStore, models_schema: str) -> None:
    """Record which store a schema uses if it remembers none; without the right to do so, do nothing."""
    from datajoint.errors import AccessError

    connection, schema = table.connection, str(table.database)
    if known_identity(connection, schema, store.name) or not table.is_declared:
        return
    found = store.read_mark()
    if found == UNREADABLE:
        raise store.unrecognised("its mark cannot be read")
    if found is None:
        _refuse_if_files_are_missing(connection, models_schema, store)
    identity = found or uuid.uuid4().hex
    with suppress(AccessError), connection.transaction:
        table.insert1(_row(store, identity))
        if found is None:
            store.write_mark(identity)


def _row(store: ObjectStore, identity: str) -> dict[str, str]:
    place = str(store.location) if isinstance(store, FolderStore) else store.place
    return {"store_name": store.name, "store_id": identity, "store_place": place[:1000]}


def _refuse_if_files_are_missing(connection: Any, schema: str, store: ObjectStore) -> None:
    """Refuse an unmarked store that has none of the files that a schema has put into a store of this name."""
    external = f"~external_{store.name}"
    if (schema, external) not in _tables(connection, external):
        return
    rows = connection.query(
        f"SELECT hash, COALESCE(attachment_name, '') FROM `{schema}`.`{external}` WHERE filepath IS NULL "
        f"ORDER BY `timestamp` DESC LIMIT {N_LOOKED_FOR}"
    ).fetchall()
    subfolding = subfolding_of(store.name)
    for content, name in rows:
        if store.find(attachment_path(schema, bytes(content), name, subfolding=subfolding)) is not None:
            return
    if rows:
        raise store.unrecognised(f"it has no mark and none of the {len(rows)} newest files of the schema {schema!r}")


def _tables(connection: Any, table: str) -> list[tuple[str, str]]:
    rows = connection.query(
        "SELECT table_schema, table_name FROM information_schema.tables WHERE table_name = %s", args=(table,)
    )
    return [(str(schema), str(name)) for schema, name in rows.fetchall()]


@contextmanager
def _lock(connection: Any, store: str) -> Iterator[bool]:
    """Let only one process at a time give a store its identity; yield whether it is this one."""
    name = f"december store {store}"[:64]
    taken = connection.query("SELECT GET_LOCK(%s, %s)", args=(name, LOCK_SECONDS)).fetchone()[0] == 1
    try:
        yield taken
    finally:
        if taken:
            connection.query("SELECT RELEASE_LOCK(%s)", args=(name,))
