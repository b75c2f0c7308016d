"""Which database server is used, and what is said when it, or the store, cannot be used.

With a lab's DataJoint settings (``dj_local_conf.json``, ``~/.datajoint_config.json``, ``DJ_HOST``, ``DJ_USER``,
``DJ_PASS``, or ``dj.config`` set in a program) these are used as they are; ``DECEMBER_SETTINGS_FILE`` names a file that
is read instead of DataJoint's two. Without any, the embedded server is started and DataJoint is pointed to it. Errors
of the server, the driver and the store become :class:`~december_plugin.errors.ServerError`.
"""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from december_plugin.database.embedded import EmbeddedServer, ServerSettings
from december_plugin.database.errors import is_tls_error, readable_errors
from december_plugin.database.schema_names import check_schema_name
from december_plugin.database.tls import check_tls_settings, stay_encrypted, tls_from_environment
from december_plugin.errors import ServerError
from december_plugin.importing.datajoint import quiet_datajoint, settings_source
from december_plugin.importing.datajoint_internals import execute_queries_with
from december_plugin.storage.home import december_home
from december_plugin.storage.stores import DEFAULT_STORE, StoreUnavailableError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPENED = "dj.conn()"  # the source of the settings of a connection that a program opened with its own arguments

logger = logging.getLogger("december_plugin")

_applied: ServerSettings | None = None  # what _use_embedded wrote into dj.config
_connected_in: int | None = None  # the process that opened dj.conn()


@dataclass(frozen=True)
class LabSettings:
    """The database server that DataJoint's settings name."""

    host: str
    port: int
    user: str | None
    source: str  # where the settings were found

    @property
    def address(self) -> str:
        """Host and port, as in messages."""
        return self.host if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Database:
    """An open connection, and which server it leads to."""

    connection: Any  # datajoint.Connection
    server: EmbeddedServer | None  # None with a lab's server
    started: bool  # the embedded server was started for this connection

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded server."""
        return self.server is not None


def lab_settings(home: str | os.PathLike[str] | None = None) -> LabSettings | None:
    """Return the server that a lab's DataJoint settings name, or None if there are none.

    Parameters
    ----------
    home
        The folder of the embedded server, whose own settings (also when saved to a DataJoint file) are not a lab's.
    """
    dj = quiet_datajoint()
    config, source = dj.config, settings_source()
    host = config["database.host"] or "localhost"
    port, user, password = config["database.port"], config["database.user"], config["database.password"]
    if host == "localhost" and port == 3306 and user is None and password is None:
        if not hasattr(dj.conn, "connection"):
            return None
        info, source = dj.conn.connection.conn_info, OPENED
        host, port, user, password = info["host"], info["port"], info["user"], info["passwd"]
    embedded = [_applied] if _applied else []
    with contextlib.suppress(ServerError):
        embedded.append(EmbeddedServer(home).settings)
    if any(host == known.host and password == known.password for known in embedded):
        return None
    return LabSettings(host, port, user, source)


def connect(
    *, home: str | os.PathLike[str] | None = None, store: str = DEFAULT_STORE, needs_store: bool = True
) -> Database:
    """Connect DataJoint to the lab's server, or else to the embedded one, which is started if it does not run.

    An open connection of this process is kept. The store is checked, so that a training never ends with a model that
    cannot be kept.

    Parameters
    ----------
    home
        The folder of the embedded server and of the default store, see
        :func:`december_plugin.storage.home.december_home`.
    store
        The DataJoint store for models. A store that is not configured becomes the folder ``store`` in `home`, which is
        made if the database knows of no store there.
    needs_store
        Whether the store must be there and writable; not for who only looks at tables.

    Returns
    -------
    Database
        The connection that ``datajoint.conn()`` returns from now on, and whether it is one to the embedded server.

    Raises
    ------
    ServerError
        The server cannot be reached or refuses the user, the embedded server cannot start, the store is unusable, or
        ``database.use_tls`` requires an encrypted connection and there is none.
    SettingsError
        ``database.use_tls`` has a value that is not allowed.
    """
    global _connected_in
    dj = quiet_datajoint()
    # A connection inherited through fork would be shared with the parent.
    mine = hasattr(dj.conn, "connection") and _connected_in in (None, os.getpid())
    open_already = mine and dj.conn.connection.is_connected
    lab = lab_settings(home)
    missing = None
    if needs_store or lab is None:
        missing = _configure_store(dj, store, home=home, lab=lab)
    if needs_store and missing is not None and lab is None and not EmbeddedServer(home).data.exists():
        _make_folder(store, missing)  # there is no database yet that could know of a store
        missing = None
    if needs_store and missing is None:
        check_store(store)
    server, started = None, False
    if lab is None:
        server = EmbeddedServer(home)
        started = server.start()
        open_already = not _use_embedded(dj, server.settings) and open_already
    elif lab.source != OPENED:
        _prepare_tls(dj)
    try:
        if not open_already:
            _open(dj, lab)
        if needs_store and missing is not None:
            _make_unless_known(dj.conn(), store, missing, is_embedded=lab is None)
    except BaseException:
        if server is not None and started:
            server.stop()
        raise
    _connected_in = os.getpid()
    with readable_errors():
        return Database(stay_encrypted(dj.conn(), required=bool(dj.config["database.use_tls"])), server, started)


def has_connected() -> bool:
    """Return whether a server has answered this process before: what it cannot reach now is no wrong address."""
    return hasattr(quiet_datajoint().conn, "connection") or _applied is not None


@contextlib.contextmanager
def database_session(*, home: str | os.PathLike[str] | None = None, store: str = DEFAULT_STORE) -> Iterator[Database]:
    """Connect for the time of a with block, and leave no server running that was not running before.

    The embedded server is stopped at the end if this call started it and no other program is connected to it.
    Parameters and errors are those of :func:`connect`.
    """
    database = connect(home=home, store=store)
    try:
        yield database
    finally:
        if database.started and database.server is not None and not _others_are_connected(database.connection):
            database.connection.close()
            database.server.stop()


def _use_embedded(dj: ModuleType, settings: ServerSettings) -> bool:
    """Point DataJoint to the embedded server; return whether this changed anything."""
    global _applied
    changed = _applied != settings
    _applied = settings
    for name in ("host", "port", "user", "password"):
        dj.config[f"database.{name}"] = getattr(settings, name)
    dj.config["database.use_tls"] = False
    return changed


def _prepare_tls(dj: ModuleType) -> None:
    if dj.config["database.use_tls"] is None:
        dj.config["database.use_tls"] = tls_from_environment()
    check_tls_settings(dj.config["database.use_tls"])


def _complete_credentials(dj: ModuleType, lab: LabSettings) -> None:
    """Ask for a missing user name or password where somebody can answer, else say what to set."""
    missing = [name for name in ("user", "password") if dj.config[f"database.{name}"] is None]
    if not missing:
        return
    if sys.stdin is None or not sys.stdin.isatty():
        variables = " and ".join({"user": "DJ_USER", "password": "DJ_PASS"}[name] for name in missing)
        keys = " and ".join(f"database.{name}" for name in missing)
        raise ServerError(
            f"No {' and no '.join(missing)} is set for the database server {lab.address} (settings from {lab.source}). "
            f"Set {variables} in the environment, or {keys} in dj_local_conf.json."
        )
    if "user" in missing:
        dj.config["database.user"] = input(f"User name for the database server {lab.address}: ")
    if "password" in missing:
        dj.config["database.password"] = getpass.getpass(f"Password for the database server {lab.address}: ")


def _open(dj: ModuleType, lab: LabSettings | None) -> None:
    with readable_errors():
        if lab is not None and lab.source == OPENED:
            dj.conn.connection.connect()
            return
        if lab is not None:
            _complete_credentials(dj, lab)
        try:
            dj.conn(reset=True)
        except Exception as error:
            # None means "TLS if the server has it"; PyMySQL takes DataJoint's None for "TLS or nothing".
            if not is_tls_error(error) or dj.config["database.use_tls"] is not None:
                raise
            dj.config["database.use_tls"] = False
            dj.conn(reset=True)


def second_connection(*, timeout: float | None = None) -> Any:
    """Open another connection with the settings, the account and the encryption of ``datajoint.conn()``.

    For a thread of its own, such as a worker's heartbeat: one connection cannot be used by two threads at once.

    Parameters
    ----------
    timeout
        Give up on an answer after this time (s), as when the network swallows everything. None waits for ever.

    Returns
    -------
    datajoint.Connection
        A connection of its own; whoever opened it closes it.

    Raises
    ------
    ServerError
        ``connect`` was not called before.
    pymysql.err.Error
        As the driver raises it: the server is away, or refuses, or has no TLS where that is required.
    """
    dj = quiet_datajoint()
    first = getattr(dj.conn, "connection", None)
    if first is None:
        raise ServerError(
            "There is no connection to the database yet. Call december_plugin.database.connection.connect() first."
        )
    info = first.conn_info
    host = info["host_input"] if "://" in info["host_input"] else info["host"]

    def open_with(use_tls: Any) -> Any:
        return dj.Connection(host, info["user"], info["passwd"], info["port"], first.init_fun, use_tls)

    try:
        second = open_with(info["ssl_input"])
    except Exception as error:
        # The first connection may be encrypted and the server have lost its TLS since.
        if not is_tls_error(error) or info["ssl_input"] is not None:
            raise
        second = open_with(False)
    if timeout is not None:
        second.close()
        second.conn_info.update(read_timeout=timeout, write_timeout=timeout)
        second.connect()
    execute_queries_with(second, _execute_query)
    return stay_encrypted(second)


def _execute_query(cursor: Any, query: str, args: Any, suppress_warnings: bool) -> None:
    """Execute as DataJoint does, but leave Python's filters of warnings alone: all threads have the same ones."""
    import pymysql
    from datajoint.connection import translate_query_error

    try:
        cursor.execute(query, args)
    except pymysql.err.Error as error:
        raise translate_query_error(error, query) from error


def _others_are_connected(connection: Any) -> bool:
    query = "SELECT COUNT(*) FROM information_schema.processlist WHERE user = %s AND id <> CONNECTION_ID()"
    with contextlib.suppress(Exception):
        return connection.query(query, (connection.conn_info["user"],)).fetchone()[0] > 0
    return False


# ---- the store


def configure_store(name: str = DEFAULT_STORE) -> None:
    """Let DataJoint know the folder in december's as the store, if none of this name is configured; nothing is made.

    :func:`connect` does so for whoever needs a store. This is for who has to find out first whether it is there.
    """
    _configure_store(quiet_datajoint(), name, home=None, lab=lab_settings())


def _configure_store(
    dj: ModuleType, name: str, *, home: str | os.PathLike[str] | None, lab: LabSettings | None
) -> Path | None:
    """Make the folder in `home` the store if none is configured; return it if it is this and does not exist."""
    stores = dj.config.get("stores") or {}
    folder = december_home(home) / "store"
    if name in stores:
        is_default = all(stores[name].get(key) == value for key, value in _default_store(folder).items())
        return folder if is_default and not folder.exists() else None
    dj.config["stores"] = {**stores, name: _default_store(folder)}
    if lab is not None and lab.host.split(":")[0] not in LOOPBACK:
        logger.warning(
            "The DataJoint settings (%s) have no store %r: models are kept in %s on this machine, where other machines "
            "cannot read them. Configure dj.config['stores'][%r] to share them.",
            lab.source,
            name,
            folder,
            name,
        )
    return None if folder.exists() else folder


def _default_store(folder: Path) -> dict[str, Any]:
    return {"protocol": "file", "location": str(folder)}


def _make_folder(name: str, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreUnavailableError(
            f"The folder {folder} for the store {name!r} cannot be created ({error.strerror or error}). Configure "
            f"dj.config['stores'][{name!r}], or set DECEMBER_HOME to a folder that is writable."
        ) from None


def _make_unless_known(connection: Any, name: str, folder: Path, *, is_embedded: bool) -> None:
    """Make the folder of the default store, which does not exist, unless it did before."""
    from december_plugin.storage.identity import was_used

    with readable_errors():
        known = was_used(connection, name, str(folder), by_anybody=is_embedded)
    if known:
        raise StoreUnavailableError(
            f"The folder {folder} of the store {name!r} is gone, with the models that the database refers to. Move it "
            "back, or mount the disk that holds it; it is not made anew, because models that are stored meanwhile "
            "would be missing later. If the models are lost, make an empty folder there and run `december store "
            "accept`."
        )
    _make_folder(name, folder)


def check_store(name: str = DEFAULT_STORE) -> None:
    """Check that a DataJoint store can be written to; a worker does so before it trains anything.

    Whether it is the right store is another question, see :mod:`december_plugin.storage.identity`.

    Parameters
    ----------
    name
        The store's name in ``dj.config['stores']``.

    Raises
    ------
    ServerError
        The store is not configured or its settings are wrong.
    StoreUnavailableError
        Its folder is missing or not writable; its bucket cannot be reached. It may come back.
    """
    dj = quiet_datajoint()
    try:
        spec = dj.config.get_store_spec(name)
    except dj.DataJointError as error:
        raise ServerError(
            f"The store {name!r} cannot be used: {error}. Correct dj.config['stores'][{name!r}], e.g. "
            "{'protocol': 'file', 'location': '/path/to/folder'}."
        ) from None
    if spec["protocol"].lower() == "file":
        _check_folder(name, Path(spec["location"]))
    else:
        _check_bucket(name, spec)


def _check_folder(name: str, folder: Path) -> None:
    place = f"The folder {folder} of the store {name!r}"
    remedy = f"or correct dj.config['stores'][{name!r}]['location']."
    if not folder.exists():
        raise StoreUnavailableError(f"{place} does not exist. Create it, mount the disk that holds it, {remedy}")
    if not folder.is_dir():
        raise StoreUnavailableError(f"{place} is not a folder. Move the file away, {remedy}")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreUnavailableError(
            f"{place} is not writable for user id {os.geteuid()} ({error.strerror or error}). Allow writing there, "
            + remedy
        ) from None


def _check_bucket(name: str, spec: dict[str, Any]) -> None:
    from december_plugin.storage.s3 import S3Store

    S3Store(name, spec).check()


# ---- schemas


def open_schema(name: str, *, connection: Any = None) -> Any:
    """Open a schema, and create it if it does not exist.

    Parameters
    ----------
    name
        The schema's name on the server.
    connection
        A DataJoint connection; by default that of :func:`connect`.

    Returns
    -------
    datajoint.Schema
        The schema, active on `connection`.

    Raises
    ------
    SettingsError
        It is one of the server's own schemas, or the name cannot be used.
    ServerError
        The user may not create it; the message has the GRANT for the server's administrator.
    """
    check_schema_name(name, places="the argument schema")
    dj = quiet_datajoint()
    connection = connection if connection is not None else connect().connection
    with readable_errors():
        return dj.Schema(name, connection=connection)
