"""Connections to the database: the one of ``datajoint.conn()``, further ones for threads, and schemas.

A lab's DataJoint settings (:mod:`december_plugin.importing.datajoint`) are used as they are. Without any, the
embedded server is started and DataJoint is pointed to it. Errors of the server, the driver and the store become
:class:`~december_plugin.errors.ServerError`.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from december_plugin.database.default_store import configure_store, make_folder, make_unless_known
from december_plugin.database.embedded import EmbeddedServer
from december_plugin.database.errors import is_tls_error, readable_errors
from december_plugin.database.lab_settings import OPENED, LabSettings, has_used_embedded, lab_settings, use_embedded
from december_plugin.database.schema_names import check_schema_name
from december_plugin.database.tls import (
    check_tls_settings,
    share_unchecked_context,
    stay_encrypted,
    tls_from_environment,
)
from december_plugin.errors import ServerError
from december_plugin.importing.datajoint import quiet_datajoint
from december_plugin.importing.datajoint_internals import execute_queries_with
from december_plugin.storage.opening import check_store
from december_plugin.storage.settings import DEFAULT_STORE

_connected_in: int | None = None  # the process that opened dj.conn()


@dataclass(frozen=True)
class Database:
    """An open connection, and the server at its other end."""

    connection: Any  # datajoint.Connection
    server: EmbeddedServer | None  # None with a lab's server
    started: bool  # the embedded server was started for this connection

    @property
    def is_embedded(self) -> bool:
        """Whether this is the embedded server."""
        return self.server is not None


def connect(
    *, home: str | os.PathLike[str] | None = None, store: str = DEFAULT_STORE, needs_store: bool = True
) -> Database:
    """Connect DataJoint to the lab's server or, without one, to the embedded server, which is started if necessary.

    An open connection of this process is kept. The store is checked, so that no training ends with a model that
    cannot be stored.

    Parameters
    ----------
    home
        The folder of the embedded server and of the default store, see
        :func:`december_plugin.storage.home.december_home`.
    store
        The DataJoint store for models. If it is not configured, it is the folder ``store`` in `home`, which is created
        unless the database remembers a store there.
    needs_store
        Require a writable store; pass False for read-only access.

    Returns
    -------
    Database
        The connection that ``datajoint.conn()`` returns from now on, and whether it leads to the embedded server.

    Raises
    ------
    ServerError
        The server cannot be reached or refuses the user, the embedded server cannot start, the store is unusable, or
        ``database.use_tls`` requires an encrypted connection and there is none.
    SettingsError
        ``database.use_tls`` has a value that is not allowed.

    See Also
    --------
    database_session : Connects for the duration of a with block.
    december_plugin.open_lab : Connects, and opens the tables of a lab.

    Examples
    --------
    >>> from december_plugin.database import connect
    >>> database = connect(needs_store=False)
    >>> database.connection.query("SELECT 6 * 7").fetchone()
    (42,)
    """
    global _connected_in
    dj = quiet_datajoint()
    share_unchecked_context()
    # A connection inherited through fork would be shared with the parent.
    mine = hasattr(dj.conn, "connection") and _connected_in in (None, os.getpid())
    open_already = mine and dj.conn.connection.is_connected
    lab = lab_settings(home)
    missing = None
    if needs_store or lab is None:
        missing = configure_store(store, home=home)
    if needs_store and missing is not None and lab is None and not EmbeddedServer(home).data.exists():
        make_folder(store, missing)  # no database exists yet that could remember a store
        missing = None
    if needs_store and missing is None:
        check_store(store)
    server, started = None, False
    if lab is None:
        server = EmbeddedServer(home)
        started = server.start()
        open_already = not use_embedded(server.settings) and open_already
    elif lab.source != OPENED:
        _prepare_tls(dj)
    try:
        if not open_already:
            _open(dj, lab)
        if needs_store and missing is not None:
            make_unless_known(dj.conn(), store, missing, is_embedded=lab is None)
    except BaseException:
        if server is not None and started:
            server.stop()
        raise
    _connected_in = os.getpid()
    with readable_errors():
        return Database(stay_encrypted(dj.conn(), required=bool(dj.config["database.use_tls"])), server, started)


def has_connected() -> bool:
    """Return whether a server has answered this process before: then the address is right."""
    return hasattr(quiet_datajoint().conn, "connection") or has_used_embedded()


@contextlib.contextmanager
def database_session(*, home: str | os.PathLike[str] | None = None, store: str = DEFAULT_STORE) -> Iterator[Database]:
    """Connect for the duration of a with block, and leave no server running that was not running before.

    The embedded server is stopped at the end if this call started it and no other program is connected to it.
    Parameters and errors are those of :func:`connect`.

    See Also
    --------
    connect : Connects, and leaves the server running.

    Examples
    --------
    >>> import datajoint as dj
    >>> from december_plugin.database import database_session
    >>> with database_session():
    ...     [name for name in dj.list_schemas() if name == "retina"]
    ['retina']
    """
    database = connect(home=home, store=store)
    try:
        yield database
    finally:
        if database.started and database.server is not None and not _others_are_connected(database.connection):
            database.connection.close()
            database.server.stop()


def _prepare_tls(dj: ModuleType) -> None:
    if dj.config["database.use_tls"] is None:
        dj.config["database.use_tls"] = tls_from_environment()
    check_tls_settings(dj.config["database.use_tls"])


def _complete_credentials(dj: ModuleType, lab: LabSettings) -> None:
    """Ask for a missing user name or password on a terminal; elsewhere say what to set."""
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

    For another thread, such as a worker's heartbeat: one connection cannot be used by two threads at once.

    Parameters
    ----------
    timeout
        Give up on an answer after this time (s), as when the network swallows everything. None waits indefinitely.

    Returns
    -------
    datajoint.Connection
        The new connection; the caller closes it.

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

    class SecondConnection(dj.Connection):  # type: ignore[name-defined]
        """A connection that limits the time for answers from the beginning."""

        def connect(self) -> None:
            if timeout is not None:
                self.conn_info.update(read_timeout=timeout, write_timeout=timeout)
            super().connect()

    def open_with(use_tls: Any) -> Any:
        return SecondConnection(host, info["user"], info["passwd"], info["port"], first.init_fun, use_tls)

    try:
        second = open_with(info["ssl_input"])
    except Exception as error:
        # The first connection may have been encrypted, and the server may have lost its TLS since.
        if not is_tls_error(error) or info["ssl_input"] is not None:
            raise
        second = open_with(False)
    execute_queries_with(second, _execute_query)
    return stay_encrypted(second)


def _execute_query(cursor: Any, query: str, args: Any, suppress_warnings: bool) -> None:
    """Execute as DataJoint does, but leave Python's filters of warnings alone, which all threads share."""
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
        The name is that of one of the server's own schemas, or cannot be used.
    ServerError
        The user may not create it; the message contains the GRANT for the server's administrator.
    """
    check_schema_name(name, places="the argument schema")
    dj = quiet_datajoint()
    connection = connection if connection is not None else connect().connection
    with readable_errors():
        return dj.Schema(name, connection=connection)
