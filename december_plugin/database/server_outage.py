"""What keeps a long computation alive while the database server is away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import pymysql
from datajoint.errors import LostConnectionError

from december_plugin.errors import ServerError
from december_plugin.importing.datajoint_internals import forget_transaction

logger = logging.getLogger(__name__)

# pymysql.err.Error is also what a closed connection raises; DataJoint passes most of them on untranslated.
CONNECTION_ERRORS = (pymysql.err.InterfaceError, pymysql.err.OperationalError, LostConnectionError, OSError)
FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0


def server_failure(connection: Any) -> Exception | None:
    """Return why the server does not answer, or None if it does; a connection that was lost is made anew."""
    try:
        connection.ping()
    except (*CONNECTION_ERRORS, pymysql.err.Error):
        try:
            connection.connect()
        except (*CONNECTION_ERRORS, pymysql.err.Error) as error:
            return error
        # DataJoint still takes the transaction for open that the lost connection had begun.
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
        A DataJoint connection. One that was lost is made anew.
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
    """nnfabrik's callback, which keeps the connection alive, made to outlive the server.

    A trainer calls it after every epoch. An error of the connection is logged and the training goes on; an error of the
    callback's own is the lab's and is raised.

    Parameters
    ----------
    connection
        The connection to keep alive.
    call_back
        The lab's own callback (``TrainedModel.call_back``), called with what the trainer gives.
    pause
        After a failure, the server is left alone for this time (s).
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
            logger.warning("the database server does not answer (%s); the training goes on without it", failure)
        if failure is None and self.failed_at is not None:
            logger.info("the database server answers again")
        self.failed_at = None if failure is None else self.clock()
