"""Tells the failure of a server or store, which passes, from the failure of a job."""

from __future__ import annotations

import pymysql
from datajoint.errors import LostConnectionError

from december_plugin import stores
from december_plugin.errors import ServerError
from december_plugin.server_errors import CODES_LOST, CODES_UNREACHABLE

# The same statement works later. Changed meanwhile (MariaDB 11.6 on), too many connections, node of a cluster not
# ready, shutdown in progress, too many connections of the user, lock wait timeout, deadlock, a limit of the user,
# interrupted, read-only during a failover, killed, time exceeded, disconnected because idle (MySQL 8).
CODES_PASSING = (
    *(*CODES_LOST, *CODES_UNREACHABLE),
    *(1020, 1040, 1047, 1053, 1203, 1205, 1213, 1226, 1317, 1836, 1927, 3024, 4031),
)


def is_outage(error: BaseException) -> bool:
    """Return whether ``error`` says that the server or the store is away, or busy, and nothing about the job."""
    if isinstance(error, (LostConnectionError, ServerError, ConnectionError)):
        return True
    if isinstance(error, pymysql.err.InterfaceError):
        return True
    if isinstance(error, pymysql.err.Error):
        return bool(error.args) and error.args[0] in CODES_PASSING
    return stores.is_outage(error)
