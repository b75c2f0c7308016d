"""What errors of the database server, its driver and the store mean, and what to do about them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from december_plugin.database.tls import CODE_TLS
from december_plugin.errors import ServerError, ServerUnreachableError
from december_plugin.importing.datajoint import settings_source

COMMON_SCHEMA = "nnfabrik_core"  # nnfabrik opens it when it is imported

CODES_LOST = (0, 2006, 2013, 2055, 4031)
CODES_DENIED = (1045, 1698)
CODES_FORBIDDEN = (1044, 1142, 1227)
CODES_UNREACHABLE = (2002, 2003, 2005)
CODE_PACKET = 1153
CODES_OTHER = (
    1021,
    1040,
    1114,
    1129,
    1130,
    1203,
    1226,
    1290,
    3118,
    3159,
    4151,
)  # the server's own words say what to do
# The server says "Table 's.t' doesn't exist", DataJoint "The table `s`.`t` is not defined."
MISSING_TABLE = re.compile(
    r"[Tt]able ['`](?P<schema>[^'`.]+)`?\.`?(?P<table>[^'`]+)['`] (?:doesn't exist|is not defined)"
)


@contextlib.contextmanager
def readable_errors() -> Iterator[None]:
    """Turn errors of the server, the driver and the store inside a with block into :class:`ServerError`."""
    try:
        yield
    except Exception as error:
        readable = explain_error(error)
        if readable is None or readable is error:
            raise
        raise readable from error


def explain_error(error: BaseException) -> ServerError | None:
    """Return what an error of DataJoint or its driver means for the user; None for other errors.

    Parameters
    ----------
    error
        Any exception. An error that was raised while handling a refused permission is explained by that permission.
    """
    import datajoint as dj
    import pymysql

    if isinstance(error, ServerError):
        return error
    if isinstance(error, dj.errors.LostConnectionError):
        return _lost(error)
    if isinstance(error, (dj.errors.MissingExternalFile, dj.errors.BucketInaccessible)):
        return ServerError(
            f"A file of the store is missing or cannot be read: {error}. Check the store's place in "
            "dj.config['stores'] and that it is mounted."
        )
    if isinstance(error, dj.errors.AccessError):
        return _forbidden(" ".join(map(str, error.args)))
    table = MISSING_TABLE.search(str(error.args[0])) if isinstance(error, dj.DataJointError) and error.args else None
    if table is not None:
        return _missing_table(table["schema"], table["table"])
    cause = error.__context__
    if isinstance(error, dj.DataJointError) and isinstance(cause, dj.errors.AccessError):
        return _forbidden(" ".join(map(str, cause.args)))
    return _explain_code(error) if isinstance(error, pymysql.err.Error) else None


def _explain_code(error: BaseException) -> ServerError | None:
    code, words = _code(error), str(error.args[-1]) if error.args else ""
    host, user = _where()
    if re.search(r"\[SSL: (?!UNEXPECTED_EOF)", words):
        return _handshake_failed(host, words)
    if code in CODES_UNREACHABLE:
        reason = re.search(r"\((?:\[Errno -?\d+\] )?(.*?)\)$", words)
        return ServerUnreachableError(
            f"The database server {host} cannot be reached ({reason[1] if reason else words}). Check that it runs and "
            f"that host and port are right (settings from {settings_source()})."
        )
    if code in CODES_DENIED:
        return ServerError(
            f"The database server {host} refuses user {user!r}: wrong user name or password. Correct DJ_USER and "
            "DJ_PASS, or database.user and database.password in dj_local_conf.json (settings from "
            f"{settings_source()})."
        )
    if code in CODES_FORBIDDEN:
        return _forbidden(words)
    if code in CODES_LOST:
        return _lost(error)
    if code == CODE_TLS:
        return ServerError(
            f"No encrypted connection to the database server {host}: it answers without TLS, which database.use_tls "
            "requires. Ask its administrator for TLS, or set database.use_tls to false in dj_local_conf.json if all "
            "who can read the network may read everything."
        )
    if code == CODE_PACKET:
        return ServerError(
            f"A row is larger than the database server {host} takes. Its administrator must raise max_allowed_packet."
        )
    return ServerError(f"The database server {host} answers: {words} (error {code}).") if code in CODES_OTHER else None


def _handshake_failed(host: str, words: str) -> ServerError:
    reason = re.search(r"\[SSL: \w+\] (.*?)\.?(?: \(_ssl\.c:\d+\))?\)$", words)
    explanation = reason[1] if reason else words
    if "CERTIFICATE_VERIFY_FAILED" in words:
        return ServerError(
            f"The certificate of the database server {host} is refused ({explanation}). database.use_tls must name the "
            "authority that signed it, and database.host the name that it certifies; if both are right, another "
            "machine answers in the server's place."
        )
    return ServerError(
        f"No encrypted connection to the database server {host} ({explanation}). The server must allow a version of "
        "TLS that this Python supports, and trust the authority of the certificate that database.use_tls may name "
        "(cert)."
    )


def is_tls_error(error: BaseException) -> bool:
    """Return whether a connection failed because the server has no TLS."""
    return _code(error) == CODE_TLS


def _code(error: BaseException) -> int | None:
    first = error.args[0] if error.args else None
    return first if isinstance(first, int) else None


def _where() -> tuple[str, str]:
    """Return the address and user of the settings, or of a connection that was made without any."""
    import datajoint as dj

    if dj.config["database.user"] is None and hasattr(dj.conn, "connection"):
        info = dj.conn.connection.conn_info
        return f"{info['host']}:{info['port']}", info["user"]
    host = dj.config["database.host"] or "localhost"
    return host if ":" in host else f"{host}:{dj.config['database.port']}", dj.config["database.user"]


def _lost(error: BaseException) -> ServerError:
    reason = error.args[-1] if error.args else error
    return ServerUnreachableError(
        f"The connection to the database server {_where()[0]} was lost ({reason}). Check that the "
        "server runs, then run the same command again: what was stored is kept."
    )


def _forbidden(words: str) -> ServerError:
    host, user = _where()
    account = re.search(r"user '([^']*)'@'([^']*)'", words)
    to = _own_account(account[1] if account else user) or (account[0][len("user ") :] if account else f"'{user}'@'%'")
    table = re.search(r"`([^`]+)`\.`([^`]+)`", words)
    command = re.search(r"\b([A-Z][A-Z, ]*[A-Z]) command denied", words)
    if command is not None and table is not None:
        name = f"`{table[1]}`.`{table[2]}`"
        return ServerError(
            f"User {to} may not {command[1]} in the table {name} on the database server {host}. What the roles admin, "
            "worker and reader may do is in docs/security.md; the server's administrator grants only this right with:\n"
            f"    GRANT {command[1]} ON {name} TO {to};"
        )
    place = re.search(r"to database '([^']+)'", words) or table
    schema = place[1] if place else None
    if schema == COMMON_SCHEMA:
        return ServerError(
            f"User {to} may not use nnfabrik's common schema `{schema}` on the database server {host}, which nnfabrik "
            "opens whenever it is imported. Ask the server's administrator to run:\n"
            f"    {_grant(schema, to, 'SELECT')}\n"
            "If that changes nothing, the schema does not exist yet: `december register`, run by a user with the admin "
            "role (docs/security.md), creates it."
        )
    target = f"the schema `{schema}`" if schema else "this schema"
    return ServerError(
        f"User {to} may not create or use {target} on the database server {host}. Ask its administrator to run:\n"
        f"    {_grant(schema or 'SCHEMA', to)}"
    )


def _own_account(user: str) -> str | None:
    """Return the account that a GRANT must name: the server's errors name the host that the user comes from."""
    import datajoint as dj

    with contextlib.suppress(Exception):
        name = dj.conn.connection.query("SELECT CURRENT_USER()", reconnect=False).fetchone()[0]
        if name.rpartition("@")[0] == user:
            return "'{}'@'{}'".format(*name.rsplit("@", 1))
    return None


def _missing_table(schema: str, table: str) -> ServerError:
    """Explain a table that DataJoint did not create: it says nothing when the user lacks the right to create it."""
    host, user = _where()
    return ServerError(
        f"The table `{schema}`.`{table}` does not exist on the database server {host}. It is created when it is first "
        f"used by a user who may create it; for {user!r} to be one, ask the server's administrator to run:\n"
        "    " + _grant(schema, _own_account(user) or f"'{user}'@'%'")
    )


def _grant(schema: str, account: str, privileges: str = "ALL PRIVILEGES") -> str:
    pattern = schema.replace("_", r"\_")  # GRANT takes a bare underscore for any character
    return f"GRANT {privileges} ON `{pattern}`.* TO {account};"
