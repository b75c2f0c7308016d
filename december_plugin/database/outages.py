"""Tells the failure of a server or store, which passes, from the failure of a job, or of the settings."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

import pymysql
from datajoint.errors import LostConnectionError

from december_plugin.database.errors import CODES_LOST, CODES_UNREACHABLE, explain_error
from december_plugin.errors import ServerError, ServerUnreachableError
from december_plugin.storage import stores

Result = TypeVar("Result")
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # between two attempts (s)

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


def may_pass(error: BaseException) -> bool:
    """Return whether ``error``, on the way to the tables, says that the server is away or busy and may come back.

    Other than for :func:`is_outage` a server that refuses the account, and settings that are wrong, are no such thing.
    """
    if isinstance(explain_error(error), ServerUnreachableError):
        return True
    cause = error.__cause__ if isinstance(error, ServerError) else error
    return isinstance(cause, pymysql.err.Error) and bool(cause.args) and cause.args[0] in CODES_PASSING


def with_server(
    step: Callable[[], Result], *, waits: Callable[[], bool], tell: Callable[[BaseException], None]
) -> Result:
    """Return what a step returns that needs the database server; wait, with growing pauses, while that is away.

    Parameters
    ----------
    step
        Is done again from its beginning after an outage.
    waits
        Whether to wait; asked after a failure. Otherwise the error is raised.
    tell
        Called with what the error means before each pause.
    """
    delay = FIRST_DELAY
    while True:
        try:
            return step()
        except Exception as error:
            if not may_pass(error) or not waits():
                raise
            tell(explain_error(error) or error)
        time.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)
