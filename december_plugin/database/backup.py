"""Backups of the embedded database with its stores, as one file or folder, and restoring them.

A backup contains, next to its manifest (see :mod:`december_plugin.database.backup_files`)::

    data/            the data folder of the server, copied while the server was stopped
    stores/NAME/     every file of each store, with the mark by which the store is known

The server is stopped only while ``data`` is copied. Workers wait for it meanwhile, and trainings continue. The stores
are copied after that, so whatever a row in the copy refers to was in its store before.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pymysql

from december_plugin import __version__
from december_plugin.database.backup_files import (
    MANIFEST,
    BackupError,
    BackupWriter,
    Manifest,
    copy_with_digest,
    files_of,
    write_backup,
)
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.database.schema_names import SYSTEM_SCHEMAS
from december_plugin.database.store_identity import TABLE
from december_plugin.errors import ServerError
from december_plugin.storage.atomic import UNFINISHED
from december_plugin.storage.attachments import attachment_path, subfolding_of
from december_plugin.storage.base import ObjectStore, checked_path
from december_plugin.storage.folder import FolderStore
from december_plugin.storage.opening import open_store
from december_plugin.storage.settings import DEFAULT_STORE

# ---- backup


def back_up(target: Path, server: EmbeddedServer) -> Manifest:
    """Write a backup, and read it back.

    Parameters
    ----------
    target
        A file whose name ends in ``.tar``, ``.tar.gz`` or ``.tgz``, or else a folder. It must not exist.
    server
        The embedded server. It is stopped for the copy of its data, and runs afterwards if it did before.

    Raises
    ------
    BackupError
        The target exists or cannot be written; it is unchanged.
    ServerError
        The server or a store cannot be used, or a store is not the one that the database knows.
    """
    if target.exists():
        raise BackupError(f"{target} exists; a backup overwrites nothing. Name another file or folder, or remove it.")
    if not server.data.is_dir():
        raise BackupError(f"{server.home} contains no embedded database, so nothing can be backed up.")
    started = server.start()
    try:
        manifest, stores, referred = _survey(server)
        with write_backup(target) as writer:
            began = datetime.now(timezone.utc)
            with server.at_rest() as data:
                _add_folder(writer, data, "data", manifest)
            manifest.seconds_stopped = (datetime.now(timezone.utc) - began).total_seconds()
            for store in stores:
                _add_store(writer, store, manifest, referred.get(store.name, {}))
            writer.add(MANIFEST, io.BytesIO(manifest.encode()))
    finally:
        if started:
            server.stop()
    return manifest


def _survey(server: EmbeddedServer) -> tuple[Manifest, list[ObjectStore], dict[str, dict[str, int]]]:
    """Return what is to be backed up, and what each store must have: the files that rows refer to, with their bytes."""
    with _connected(server) as connection:
        manifest = Manifest(
            made=f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S}",
            version=__version__,
            server=str(connection.rows("SELECT VERSION()")[0][0]),
            tables=_tables(connection),
        )
        names = sorted({DEFAULT_STORE, *_stores_in_use(connection)})
        stores = [open_store(name) for name in names]
        for store in stores:
            store.check()
            for identity in _known_identities(connection, store.name):
                store.identity = identity
                store.check_identity()
        return manifest, stores, {store.name: referred_files(connection, store.name) for store in stores}


def _add_folder(writer: BackupWriter, folder: Path, name: str, manifest: Manifest) -> None:
    for place, _, files in sorted(os.walk(folder)):
        for file in sorted(files):
            path = Path(place, file)
            inside = f"{name}/{path.relative_to(folder).as_posix()}"
            with path.open("rb") as content:
                manifest.files[inside] = writer.add(inside, content)


def _add_store(writer: BackupWriter, store: ObjectStore, manifest: Manifest, referred: dict[str, int]) -> None:
    sizes: dict[str, int] = {}
    for stored in store.list():
        if stored.path.endswith(UNFINISHED):
            continue
        inside = f"stores/{store.name}/{stored.path}"
        try:
            content = store.get(stored.path)
        except FileNotFoundError:  # a checkpoint that is no longer needed
            continue
        manifest.files[inside] = writer.add(inside, io.BytesIO(content))
        sizes[stored.path] = len(content)
    manifest.stores[store.name] = len(sizes)
    manifest.missing += [f"{store.name}: {path}" for path, size in sorted(referred.items()) if sizes.get(path) != size]


# ---- restore


def restore(source: Path, server: EmbeddedServer) -> Manifest:
    """Restore a backup where neither a database nor a file in its stores exists, and verify that it is complete.

    Parameters
    ----------
    source
        What :func:`back_up` has written.
    server
        The embedded server that receives the data. It does not run afterwards.

    Raises
    ------
    BackupError
        The source is not a backup, or a database or a store exists already.
    DamagedError
        A file of the backup is not what was written. In each of these cases, nothing was restored.
    ServerError
        The server does not start on the data, or a store cannot be used.
    """
    if not source.exists():
        raise BackupError(f"the backup {source} does not exist.")
    if server.data.exists():
        raise BackupError(
            f"{server.data} already contains a database. A backup needs an empty place: set "
            "DECEMBER_HOME to another folder, or move this one away."
        )
    partial = server.home / "restoring"
    if partial.exists():
        raise BackupError(f"{partial} is left over from an interrupted restoration. Remove it and try again.")
    try:
        server.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        manifest = _unpack(source, partial)
        stores = {name: _empty_store(name) for name in manifest.stores}
        (partial / "server").mkdir(mode=0o700)
        (partial / "data").rename(partial / "server" / "data")
        trial = _try_server(partial, manifest)
        with contextlib.ExitStack() as undo:
            for name, store in stores.items():
                _fill(store, partial / "stores" / name, undo)
            server.adopt(trial.data)
            undo.pop_all()
    except OSError as error:
        raise BackupError(
            f"{source} cannot be restored in {server.home} ({error.strerror or error}). Make room there, or set "
            "DECEMBER_HOME to another folder."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _try_server(partial: Path, manifest: Manifest) -> EmbeddedServer:
    """Start a server on the restored data, verify that everything is there, and return it, shut down."""
    trial = EmbeddedServer(partial)
    try:
        trial.start()
        _verify(trial, manifest, partial)
    except ServerError as error:
        raise BackupError(
            f"MariaDB does not work on the restored data. They come from version {manifest.server}: use that one, or a "
            f"newer one. {error}"
        ) from error
    finally:
        trial.stop()
    return trial


def _unpack(source: Path, partial: Path) -> Manifest:
    """Copy a backup into a folder of this machine and compare every checksum; return its contents."""
    found: dict[str, tuple[int, str]] = {}
    encoded = None
    for name, content in files_of(source):
        target = partial / checked_path(name)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            found[name] = copy_with_digest(content, file)
        if name == MANIFEST:
            encoded = target.read_bytes()
    manifest = Manifest.decode(encoded, source=source)
    found.pop(MANIFEST)
    manifest.compare(found, source=source)
    return manifest


def _empty_store(name: str) -> ObjectStore:
    """Return the store to be filled; refuse one that has files."""
    store = open_store(name)
    if isinstance(store, FolderStore):
        store.location.mkdir(parents=True, exist_ok=True)
    first = next(iter(store.list()), None)
    if first is not None:
        raise BackupError(
            f"the store {name!r} ({store.place}) has files already ({first.path}). A backup is restored into an empty "
            "one: move these files away, or configure another place."
        )
    return store


def _fill(store: ObjectStore, folder: Path, undo: contextlib.ExitStack) -> None:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            undo.callback(store.remove, name)
            store.put(name, path.read_bytes())


def _verify(server: EmbeddedServer, manifest: Manifest, partial: Path) -> None:
    """Check that the server has all tables; note the files that rows refer to and that the backup lacks."""
    with _connected(server) as connection:
        tables = _tables(connection)
        if tables != manifest.tables:
            raise BackupError(
                f"the restored database has the tables {tables}; the backup was made of {manifest.tables}."
            )
        manifest.missing = []
        for name in manifest.stores:
            for path, size in sorted(referred_files(connection, name).items()):
                file = partial / "stores" / name / path
                if not file.is_file() or file.stat().st_size != size:
                    manifest.missing.append(f"{name}: {path}")


# ---- queries


class _Connection:
    """Rows, from a connection of the driver."""

    def __init__(self, connection: Any):
        self._connection = connection

    def rows(self, query: str, *args: Any) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(query, args or None)
            return list(cursor.fetchall())


@contextlib.contextmanager
def _connected(server: EmbeddedServer) -> Iterator[_Connection]:
    own = server.settings
    connection = pymysql.connect(
        host=own.host, port=own.port, user=own.user, password=own.password, autocommit=True, ssl_disabled=True
    )
    try:
        yield _Connection(connection)
    finally:
        connection.close()


def _tables(connection: _Connection) -> dict[str, int]:
    marks = ", ".join(["%s"] * len(SYSTEM_SCHEMAS))
    rows = connection.rows(
        f"SELECT table_schema, COUNT(*) FROM information_schema.tables WHERE table_schema NOT IN ({marks}) "
        "GROUP BY table_schema ORDER BY table_schema",
        *SYSTEM_SCHEMAS,
    )
    return {str(schema): int(number) for schema, number in rows}


def _stores_in_use(connection: _Connection) -> list[str]:
    beginning = "~external_"
    rows = connection.rows(
        "SELECT DISTINCT table_name FROM information_schema.tables WHERE LEFT(table_name, %s) = %s",
        len(beginning),
        beginning,
    )
    return [str(name)[len(beginning) :] for (name,) in rows]


def _known_identities(connection: _Connection, store: str) -> list[str]:
    found = []
    for schema in _schemas_with(connection, TABLE):
        rows = connection.rows(f"SELECT store_id FROM `{schema}`.`{TABLE}` WHERE store_name = %s", store)
        found += [str(identity) for (identity,) in rows]
    return found


def _schemas_with(connection: _Connection, table: str) -> list[str]:
    rows = connection.rows("SELECT table_schema FROM information_schema.tables WHERE table_name = %s", table)
    return [str(schema) for (schema,) in rows]


def referred_files(connection: _Connection, store: str) -> dict[str, int]:
    """Return the files of a store that rows refer to, by their paths in it, with their sizes (bytes).

    Parameters
    ----------
    connection
        To the server.
    store
        DataJoint's name of the store.
    """
    table, files = f"~external_{store}", {}
    subfolding = subfolding_of(store)
    for schema in _schemas_with(connection, table):
        rows = connection.rows(f"SELECT hash, COALESCE(attachment_name, ''), filepath, size FROM `{schema}`.`{table}`")
        for content, name, filepath, size in rows:
            if filepath is not None:
                files[str(filepath)] = int(size)
            else:
                files[attachment_path(schema, bytes(content), name, subfolding=subfolding)] = int(size)
    return files
