"""Encryption of the connection to the database: what ``database.use_tls`` allows, and checks that it is enforced.

=======================  ========================================================================================
``database.use_tls``     meaning
=======================  ========================================================================================
``null`` (the default)   encrypted where the server offers it; the server's certificate is not checked
``true``                 encrypted or not at all; the certificate is not checked
``{"ca": "/path.pem"}``  encrypted or not at all; the certificate must be signed by this authority and name the host
``false``                not required; DataJoint and PyMySQL differ by version in whether they encrypt nevertheless
=======================  ========================================================================================

The environment variable ``DECEMBER_USE_TLS`` (``true``, ``false`` or the path of an authority's certificate) replaces a
missing setting, as in a container that has no file with settings.
"""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path
from typing import Any

from december_plugin.errors import SettingsError, did_you_mean

VARIABLE = "DECEMBER_USE_TLS"
CODE_TLS = 2026  # of the driver's error where the server has no TLS
FILES = ("ca", "capath", "cert", "key")
OPTIONS = (*FILES, "password", "cipher", "check_hostname", "verify_mode")  # of PyMySQL's argument ssl


def tls_from_environment() -> bool | dict[str, str] | None:
    """Return what ``DECEMBER_USE_TLS`` asks for, as ``database.use_tls`` takes it; None if it is not set."""
    text = os.environ.get(VARIABLE, "").strip()
    if text.lower() in ("", "true", "false"):
        return {"": None, "true": True, "false": False}[text.lower()]
    return {"ca": text}


def check_tls_settings(use_tls: Any) -> None:
    """Check ``database.use_tls``: PyMySQL would treat a misspelled option as "any certificate will do".

    Raises
    ------
    SettingsError
        It has a wrong type, an unknown option, options without an authority, or a file that cannot be used.
    """
    if use_tls is None or isinstance(use_tls, bool):
        return
    if not isinstance(use_tls, dict):
        raise SettingsError(
            f'database.use_tls is {use_tls!r}; it must be true, false, null or {{"ca": "/path/to/ca.pem"}}, without '
            "quotes around true and false."
        )
    for name in use_tls:
        if name not in OPTIONS:
            raise SettingsError(f"database.use_tls has no option {name!r}. {did_you_mean(str(name), OPTIONS)}")
    if not (use_tls.get("ca") or use_tls.get("capath")):
        raise SettingsError(
            "database.use_tls names no certificate authority (ca), so no certificate would be checked. Add "
            '"ca": "/path/to/ca.pem", or set database.use_tls to true for an encrypted connection to any server.'
        )
    for name in FILES:
        if name in use_tls and not os.access(Path(use_tls[name]), os.R_OK):
            problem = "cannot be read" if Path(use_tls[name]).exists() else "does not exist"
            raise _unusable(use_tls[name], name, problem)
    try:
        context = ssl.create_default_context(cafile=use_tls.get("ca"), capath=use_tls.get("capath"))
    except ssl.SSLError:
        raise _unusable(use_tls.get("ca"), "ca", "holds no certificate in PEM form") from None
    if "cert" in use_tls:
        try:
            context.load_cert_chain(use_tls["cert"], use_tls.get("key"), use_tls.get("password") or "")
        except ssl.SSLError:
            problem = "is not a certificate in PEM form that goes with the key and its password"
            raise _unusable(use_tls["cert"], "cert", problem) from None


def _unusable(path: Any, option: str, problem: str) -> SettingsError:
    return SettingsError(
        f"the file {path} of database.use_tls ({option}) {problem}. Correct the path, or ask the database's "
        "administrator for the file."
    )


def is_required(connection: Any) -> bool:
    """Return whether a DataJoint connection was opened with required encryption."""
    return connection.conn_info["ssl_input"] not in (None, False)


def cipher(connection: Any) -> str:
    """Return the cipher of a DataJoint connection as the server knows it; empty if it is not encrypted."""
    row = connection.query("SHOW SESSION STATUS LIKE 'Ssl_cipher'", reconnect=False).fetchone()
    return str(row[1]) if row else ""


def stay_encrypted(connection: Any, *, required: bool = False) -> Any:
    """Return the connection, checked now and after every reconnection if it must be encrypted.

    PyMySQL before 1.2 continues silently if the server has no TLS, even if it was required.

    Parameters
    ----------
    connection
        A DataJoint connection.
    required
        Require encryption even if the connection was opened without requiring it.

    Raises
    ------
    pymysql.err.OperationalError
        It is not encrypted, and was closed; PyMySQL raises this itself from version 1.2 on.
    """
    if required or is_required(connection):
        _check_cipher(connection)
        connection.connect = functools.partial(_connect_encrypted, connection)
    return connection


def _check_cipher(connection: Any) -> None:
    if not cipher(connection):
        from pymysql.err import OperationalError

        connection.close()
        raise OperationalError(CODE_TLS, "SSL is required, but the connection is not encrypted")


def _connect_encrypted(connection: Any) -> None:
    type(connection).connect(connection)
    _check_cipher(connection)


def share_unchecked_context() -> None:
    """Let all connections that check no certificate share one TLS context; calling it again changes nothing.

    PyMySQL makes a context for every connection, with or without TLS, and reads all authorities that the machine knows
    into it, which takes 20 ms, as long as a hundred statements.
    """
    from pymysql.connections import Connection

    make = Connection._create_ssl_ctx  # noqa: SLF001
    if hasattr(make, "before_december"):
        return

    unchecked: list[ssl.SSLContext] = []

    def context_for(connection: Any, options: Any) -> ssl.SSLContext:
        if not isinstance(options, dict) or any(options.get(name) for name in OPTIONS):
            return make(connection, options)
        if not unchecked:
            unchecked.append(make(connection, {}))
        return unchecked[0]

    context_for.before_december = make  # type: ignore[attr-defined]
    Connection._create_ssl_ctx = context_for  # noqa: SLF001
