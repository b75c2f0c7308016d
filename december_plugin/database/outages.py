"""Outages of the database server and the store: which errors mean one, and waiting until it is over.

Until the server answers again, workers wait (:func:`with_server`, :func:`wait_for_server`) and trainings continue
(:class:`SurvivingCallback`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pymysql
from datajoint.errors import LostConnectionError

from december_plugin.database.errors import CODES_LOST, CODES_UNREACHABLE, explain_error
from december_plugin.errors import ServerError, ServerUnreachableError
from december_plugin.importing.datajoint_internals import forget_transaction
from december_plugin.storage.base import is_store_outage

Result = TypeVar("Result")
FIRST_DELAY, LONGEST_DELAY = 1.0, 60.0  # between two attempts (s)

logger = logging.getLogger(__name__)

# pymysql.err.Error is also what a closed connection raises; DataJoint passes most of them on untranslated.
CONNECTION_ERRORS = (pymysql.err.InterfaceError, pymysql.err.OperationalError, LostConnectionError, OSError)

# The same statement works later. Changed meanwhile (MariaDB 11.6 on), too many connections, node of a cluster not
# ready, shutdown in progress, too many connections of the user, lock wait timeout, deadlock, a limit of the user,
# interrupted, read-only during a failover, killed, time exceeded, disconnected because idle (MySQL 8).
CODES_PASSING = (
    *(*CODES_LOST, *CODES_UNREACHABLE),
    *(1020, 1040, 1047, 1053, 1203, 1205, 1213, 1226, 1317, 1836, 1927, 3024, 4031),
)


def is_outage(error: BaseException) -> bool:
    """Return whether ``error`` only says that the server or the store is away or busy, and nothing about the job."""
    if isinstance(error, (LostConnectionError, ServerError, ConnectionError)):
        return True
    if isinstance(error, pymysql.err.InterfaceError):
        return True
    if isinstance(error, pymysql.err.Error):
        return bool(error.args) and error.args[0] in CODES_PASSING
    return is_store_outage(error)


def may_pass(error: BaseException) -> bool:
    """Return whether ``error``, on the way to the tables, says that the server is away or busy and may come back.

    Unlike for :func:`is_outage`, wrong settings, and a server that refuses the account, do not count.
    """
    if isinstance(explain_error(error), ServerUnreachableError):
        return True
    cause = error.__cause__ if isinstance(error, ServerError) else error
    return isinstance(cause, pymysql.err.Error) and bool(cause.args) and cause.args[0] in CODES_PASSING


def with_server(
    step: Callable[[], Result], *, waits: Callable[[], bool], on_outage: Callable[[BaseException], None]
) -> Result:
    """Return the result of a step that needs the database server; wait, with growing pauses, while the server is away.

    Parameters
    ----------
    step
        Repeated from its beginning after an outage.
    waits
        Whether to wait; asked after a failure. Otherwise the error is raised.
    on_outage
        Called with what the error means before each pause.
    """
    delay = FIRST_DELAY
    while True:
        try:
            return step()
        except Exception as error:
            if not may_pass(error) or not waits():
                raise
            on_outage(explain_error(error) or error)
        time.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)


def server_failure(connection: Any) -> Exception | None:
    """Return why the server does not answer, or None if it does; a lost connection is reopened."""
    try:
        connection.ping()
    except (*CONNECTION_ERRORS, pymysql.err.Error):
        try:
            connection.connect()
        except (*CONNECTION_ERRORS, pymysql.err.Error) as error:
            return error
        # DataJoint still believes that the transaction of the lost connection is open.
        forget_transaction(connection)
    return None


def wait_for_server(
    connection: Any,
    *,
    longest: float = 3600.0,
    what: str = "a result",
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Return when the server answers; wait for it with growing pauses if it does not.

    Parameters
    ----------
    connection
        A DataJoint connection. A lost one is reopened.
    longest
        Give up after this time (s).
    what
        What waits, for the log and the error.
    sleep, clock
        Replaced by tests.

    Raises
    ------
    ServerError
        If the server did not come back in time.
    """
    began, delay = clock(), FIRST_DELAY
    while (failure := server_failure(connection)) is not None:
        waited = clock() - began
        if waited >= longest:
            raise ServerError(
                f"{what} could not be stored: the database server did not answer for {waited:.0f} s ({failure}). "
                "Start the server, then run the job again."
            ) from failure
        logger.warning(
            "%s waits for the database server, which does not answer (%s); next attempt in %.0f s, giving up in %.0f s",
            what,
            failure,
            delay,
            longest - waited,
        )
        sleep(min(delay, longest - waited))
        delay = min(2 * delay, LONGEST_DELAY)


class SurvivingCallback:
    """nnfabrik's callback that keeps the connection alive, made to survive an outage of the server.

    A trainer calls it after every epoch. An error of the connection is logged and the training continues; an error of
    the callback itself is the lab's and is raised.

    Parameters
    ----------
    connection
        The connection to keep alive.
    call_back
        The lab's own callback (``TrainedModel.call_back``), called with what the trainer gives.
    pause
        Leave the server alone for this time (s) after a failure.
    clock
        Replaced by tests.
    """

    def __init__(
        self,
        connection: Any,
        call_back: Callable[..., Any],
        *,
        pause: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.connection = connection
        self.call_back = call_back
        self.pause = pause
        self.clock = clock
        self.failed_at: float | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        """Keep the connection alive and call the lab's callback, if the server answers."""
        if self.failed_at is not None and self.clock() - self.failed_at < self.pause:
            return
        failure = server_failure(self.connection)
        if failure is None:
            try:
                self.call_back(*args, **kwargs)
            except CONNECTION_ERRORS as error:
                failure = error
        if failure is not None and self.failed_at is None:
            logger.warning("the database server does not answer (%s); the training continues without it", failure)
        if failure is None and self.failed_at is not None:
            logger.info("the database server answers again")
        self.failed_at = None if failure is None else self.clock()
