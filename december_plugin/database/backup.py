"""Backups of the embedded database with its stores, as one file or folder, and the way back.

A backup has, beside :data:`MANIFEST` with the size and checksum of each file::

    data/            the data folder of the server, copied while that was stopped
    stores/NAME/     every file of each store, with the mark by which the store is known

The server is stopped for the copy of ``data`` alone. Workers wait for it meanwhile, and trainings go on. The stores are
copied after that: whatever a row in the copy refers to was in its store before.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any, Protocol

import pymysql

from december_plugin import __version__
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.database.schema_names import SYSTEM_SCHEMAS
from december_plugin.errors import DecemberError, ServerError
from december_plugin.storage.atomic import UNFINISHED, DamagedError
from december_plugin.storage.base import ObjectStore, checked_path
from december_plugin.storage.folder import FolderStore
from december_plugin.storage.identity import TABLE
from december_plugin.storage.opening import open_store
from december_plugin.storage.settings import DEFAULT_STORE, store_settings

MANIFEST = "december-backup.json"
FORMAT = 1
PLAIN, COMPRESSED = (".tar",), (".tar.gz", ".tgz")  # ends of the names of files; others are folders
PIECE = 1 << 20  # bytes


class BackupError(DecemberError, RuntimeError):
    """A backup cannot be made or restored."""


@dataclass
class Summary:
    """What a backup has."""

    made: str = ""  # UTC
    version: str = ""  # of december
    server: str = ""  # version
    tables: dict[str, int] = field(default_factory=dict)  # by schema
    stores: dict[str, int] = field(default_factory=dict)  # files, by store
    files: dict[str, tuple[int, str]] = field(default_factory=dict)  # bytes and SHA-256
    missing: list[str] = field(default_factory=list)  # files that rows refer to
    seconds_stopped: float = 0.0

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())


# ---- backup


def back_up(target: Path, server: EmbeddedServer) -> Summary:
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
        The target exists or cannot be written; it is as it was before.
    ServerError
        The server or a store cannot be used, or a store is not the one that the database knows.
    """
    if target.exists():
        raise BackupError(f"{target} exists. A backup overwrites nothing: name another file or folder, or remove it.")
    if not server.data.is_dir():
        raise BackupError(f"there is no embedded database in {server.home}, so there is nothing to back up.")
    partial = target.with_name(f"{target.name}.partial")
    started = server.start()
    try:
        summary, stores, referred = _survey(server)
        with _written(partial, target) as writer:
            began = datetime.now(timezone.utc)
            with server.at_rest() as data:
                _add_folder(writer, data, "data", summary)
            summary.seconds_stopped = (datetime.now(timezone.utc) - began).total_seconds()
            for store in stores:
                _add_store(writer, store, summary, referred.get(store.name, {}))
            writer.add(MANIFEST, io.BytesIO(json.dumps({"format": FORMAT, **vars(summary)}, indent=1).encode()))
    finally:
        if started:
            server.stop()
    return summary


def _survey(server: EmbeddedServer) -> tuple[Summary, list[ObjectStore], dict[str, dict[str, int]]]:
    """Return what is to be backed up, and what each store must have: the files that rows refer to, with their bytes."""
    with _connected(server) as connection:
        summary = Summary(
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
        return summary, stores, {store.name: referred_files(connection, store.name) for store in stores}


def _add_folder(writer: Writer, folder: Path, name: str, summary: Summary) -> None:
    for place, _, files in sorted(os.walk(folder)):
        for file in sorted(files):
            path = Path(place, file)
            inside = f"{name}/{path.relative_to(folder).as_posix()}"
            with path.open("rb") as content:
                summary.files[inside] = writer.add(inside, content)


def _add_store(writer: Writer, store: ObjectStore, summary: Summary, referred: dict[str, int]) -> None:
    sizes: dict[str, int] = {}
    for stored in store.list():
        if stored.path.endswith(UNFINISHED):
            continue
        inside = f"stores/{store.name}/{stored.path}"
        try:
            content = store.get(stored.path)
        except FileNotFoundError:  # a checkpoint that is of no use any more
            continue
        summary.files[inside] = writer.add(inside, io.BytesIO(content))
        sizes[stored.path] = len(content)
    summary.stores[store.name] = len(sizes)
    summary.missing += [f"{store.name}: {path}" for path, size in sorted(referred.items()) if sizes.get(path) != size]


# ---- restore


def restore(source: Path, server: EmbeddedServer) -> Summary:
    """Put a backup where there is neither a database nor a file in its stores, and look whether all of it is there.

    Parameters
    ----------
    source
        What :func:`back_up` has written.
    server
        The embedded server that is to have the data. It does not run afterwards.

    Raises
    ------
    BackupError
        The source is no backup, or there is a database or a store already.
    DamagedError
        A file of the backup is not what was written. In every case nothing was restored.
    ServerError
        The server does not start on the data, or a store cannot be used.
    """
    if not source.exists():
        raise BackupError(f"there is no backup {source}.")
    if server.data.exists():
        raise BackupError(
            f"there is a database in {server.data} already. A backup is restored where there is none: set "
            "DECEMBER_HOME to another folder, or move this one away."
        )
    partial = server.home / "restoring"
    if partial.exists():
        raise BackupError(f"{partial} is left from a restoration that was interrupted. Remove it and try again.")
    try:
        server.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        summary = _unpacked(source, partial)
        stores = {name: _empty_store(name) for name in summary.stores}
        (partial / "server").mkdir(mode=0o700)
        (partial / "data").rename(partial / "server" / "data")
        trial = _tried(partial, summary)
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
    return summary


def _tried(partial: Path, summary: Summary) -> EmbeddedServer:
    """Start a server on the restored data, look whether all is there, and return it, shut down."""
    trial = EmbeddedServer(partial)
    try:
        trial.start()
        _verify(trial, summary, partial)
    except ServerError as error:
        raise BackupError(
            f"MariaDB does not work on the restored data. They are of version {summary.server}: use that one, or a "
            f"newer one. {error}"
        ) from error
    finally:
        trial.stop()
    return trial


def _unpacked(source: Path, partial: Path) -> Summary:
    """Copy a backup into a folder of this machine, with every checksum compared; return what it has."""
    found: dict[str, tuple[int, str]] = {}
    manifest = None
    for name, content in _files_of(source):
        target = partial / checked_path(name)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            found[name] = _copied(content, file)
        if name == MANIFEST:
            manifest = target.read_bytes()
    summary = _read_manifest(source, manifest)
    found.pop(MANIFEST)
    _compare(source, found, summary)
    return summary


def _read_manifest(source: Path, content: bytes | None) -> Summary:
    if content is None:
        raise BackupError(f"{source} is no backup of december, or not a whole one: it has no {MANIFEST}.")
    try:
        values = json.loads(content)
        number = values.pop("format")
        values["files"] = {name: (int(size), str(digest)) for name, (size, digest) in values["files"].items()}
        summary = Summary(**values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedError(f"the file {MANIFEST} of the backup {source} cannot be read ({error}).") from None
    if number != FORMAT:
        raise BackupError(
            f"{source} is a backup of format {number}; this december knows {FORMAT}. Restore it with the version of "
            f"december that made it ({summary.version})."
        )
    return summary


def _compare(source: Path, found: dict[str, tuple[int, str]], summary: Summary) -> None:
    wrong = sorted(name for name in found.keys() | summary.files.keys() if found.get(name) != summary.files.get(name))
    if wrong:
        raise DamagedError(
            f"the backup {source} is damaged: {wrong[0]} is not what was backed up ({len(wrong)} of "
            f"{len(summary.files)} files are missing, altered or unknown). Take another backup."
        )


def _empty_store(name: str) -> ObjectStore:
    """Return a store that is to be filled; refuse one that has files."""
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


def _verify(server: EmbeddedServer, summary: Summary, partial: Path) -> None:
    """Look whether the server has all tables; note the files that rows refer to and that the backup lacks."""
    with _connected(server) as connection:
        tables = _tables(connection)
        if tables != summary.tables:
            raise BackupError(
                f"the restored database has the tables {tables}; the backup was made of {summary.tables}."
            )
        summary.missing = []
        for name in summary.stores:
            for path, size in sorted(referred_files(connection, name).items()):
                file = partial / "stores" / name / path
                if not file.is_file() or file.stat().st_size != size:
                    summary.missing.append(f"{name}: {path}")


# ---- what the database says


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
    from datajoint.external import subfold

    table, files = f"~external_{store}", {}
    folds = tuple(store_settings(store)["subfolding"])
    for schema in _schemas_with(connection, table):
        rows = connection.rows(f"SELECT hash, COALESCE(attachment_name, ''), filepath, size FROM `{schema}`.`{table}`")
        for content, name, filepath, size in rows:
            digest = bytes(content).hex()
            file = f"{digest}.{name}" if name else digest
            path = str(filepath) if filepath is not None else "/".join((schema, *subfold(digest, folds), file))
            files[path] = int(size)
    return files


# ---- files and folders


class Writer(Protocol):
    """Where a backup is written."""

    def add(self, name: str, content: IO[bytes]) -> tuple[int, str]:
        """Write a file; return its bytes and SHA-256."""


class _FolderWriter:
    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(mode=0o700)

    def add(self, name: str, content: IO[bytes]) -> tuple[int, str]:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            written = _copied(content, file)
            file.flush()
            os.fsync(file.fileno())
        return written


class _ArchiveWriter:
    def __init__(self, archive: tarfile.TarFile):
        self.archive = archive

    def add(self, name: str, content: IO[bytes]) -> tuple[int, str]:
        size = content.seek(0, os.SEEK_END)
        content.seek(0)
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        info.mtime = int(datetime.now(timezone.utc).timestamp())
        reader = _Hashing(content)
        self.archive.addfile(info, reader)
        return size, reader.digest.hexdigest()


class _Hashing:
    """Reads, and takes the checksum of what is read."""

    def __init__(self, content: IO[bytes]):
        self.content, self.digest = content, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        piece = self.content.read(size)
        self.digest.update(piece)
        return piece


def _copied(source: IO[bytes], target: IO[bytes] | None) -> tuple[int, str]:
    """Copy, or only read; return the bytes and their SHA-256."""
    digest, size = hashlib.sha256(), 0
    while piece := source.read(PIECE):
        digest.update(piece)
        if target is not None:
            target.write(piece)
        size += len(piece)
    return size, digest.hexdigest()


def _archive_in(file: IO[bytes], name: str) -> tarfile.TarFile:
    if name.endswith(COMPRESSED):
        return tarfile.open(fileobj=file, mode="w:gz", compresslevel=3)
    return tarfile.open(fileobj=file, mode="w")


@contextlib.contextmanager
def _written(partial: Path, target: Path) -> Iterator[Writer]:
    """Write a backup beside its final place, read it back at the end, and give it its name then."""
    try:
        if not target.name.endswith(PLAIN + COMPRESSED):
            yield _FolderWriter(partial)
        else:
            with (
                open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
                _archive_in(file, target.name) as archive,
            ):
                yield _ArchiveWriter(archive)
        _read_back(partial)
        os.rename(partial, target)
    except BaseException as error:
        exists = isinstance(error, FileExistsError)
        if not exists:
            shutil.rmtree(partial, ignore_errors=True) if partial.is_dir() else partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, DecemberError):
            remedy = (
                "Remove what an interrupted backup has left." if exists else "Make room there, or name another place."
            )
            raise BackupError(
                f"the backup {target} cannot be written ({error.strerror or error}: {partial}). {remedy}"
            ) from error
        raise


def _read_back(path: Path) -> None:
    found, manifest = {}, None
    for name, content in _files_of(path):
        if name == MANIFEST:
            manifest = content.read()
            continue
        found[name] = _copied(content, None)
    _compare(path, found, _read_manifest(path, manifest))


def _files_of(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield the files of a backup; nothing else than plain files with names that stay inside it."""
    if source.is_dir():
        for path in sorted(source.rglob("*")):
            if path.is_file() and not path.is_symlink():
                with path.open("rb") as file:
                    yield path.relative_to(source).as_posix(), file
        return
    with _readable(source), tarfile.open(source, "r:*") as archive:
        while (member := archive.next()) is not None:
            if member.isreg() and (content := archive.extractfile(member)) is not None:
                yield member.name, _Guarded(source, content)  # type: ignore[misc]


class _Guarded:
    """Reads from an archive; what is wrong with the archive is damage."""

    def __init__(self, source: Path, content: IO[bytes]):
        self.source, self.content = source, content

    def read(self, size: int = -1) -> bytes:
        with _readable(self.source):
            return self.content.read(size)


@contextlib.contextmanager
def _readable(source: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise DamagedError(f"the backup {source} cannot be read ({error}).") from None
