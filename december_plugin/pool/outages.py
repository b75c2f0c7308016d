"""Tells the failure of a server or store, which passes, from the failure of a job."""

from __future__ import annotations

import pymysql
from datajoint.errors import LostConnectionError

from december_plugin import stores
from december_plugin.errors import ServerError
from december_plugin.server_errors import CODES_LOST, CODES_UNREACHABLE

# Deadlock, lock wait timeout, shutdown in progress, too many connections, killed: the same statement works later.
CODES_PASSING = (*CODES_LOST, *CODES_UNREACHABLE, 1040, 1053, 1205, 1213, 1317, 1927, 3024)


def is_outage(error: BaseException) -> bool:
    """Return whether ``error`` says that the server or the store is away, or busy, and nothing about the job."""
    if isinstance(error, (LostConnectionError, ServerError, ConnectionError)):
        return True
    if isinstance(error, pymysql.err.InterfaceError):
        return True
    if isinstance(error, pymysql.err.Error):
        return bool(error.args) and error.args[0] in CODES_PASSING
    return stores.is_outage(error)
