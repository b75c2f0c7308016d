"""Lets a worker wait while the server or the store is away."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from december_plugin.database.outages import FIRST_DELAY, LONGEST_DELAY, is_outage, server_failure
from december_plugin.errors import ServerError
from december_plugin.pool.worker.job_settings import JobSettings
from december_plugin.storage.opening import check_store

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


def wait_for_places(settings: JobSettings, connection: Any, *, store: bool, longest: float = math.inf) -> bool:
    """Return when the server and, with ``store``, the store can be used; wait indefinitely, with growing pauses.

    Parameters
    ----------
    settings, connection
        Of the worker.
    store
        Whether the store is needed, too.
    longest
        Give up after this time (s).

    Returns
    -------
    bool
        Whether it had to wait.

    Raises
    ------
    ServerError
        The time is over; the message says what is still away.
    """
    state, delay, before = settings.state, FIRST_DELAY, settings.state.state
    began = time.monotonic()
    while (problem := _problem(settings, connection, store)) is not None:
        if time.monotonic() - began >= longest:
            raise ServerError(problem)
        if state.state != "waiting" or state.detail != problem:
            logger.warning("waiting: %s", problem)
        state.state, state.detail = "waiting", problem
        settings.heartbeat.beat_soon()
        time.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)
    if state.state != "waiting":
        return False
    logger.info("the server and the store answer again")
    state.state, state.detail = before, ""
    settings.heartbeat.beat_soon()
    return True


def surviving(settings: JobSettings, connection: Any, step: Callable[[], Result]) -> Result:
    """Return the result of a step on the database, however long the server is away meanwhile."""
    delay = 1.0
    while True:
        try:
            return step()
        except Exception as error:
            if not is_outage(error):
                raise
            logger.warning("the database server: %s", error)
        wait_for_places(settings, connection, store=False)
        time.sleep(delay)
        delay = min(2 * delay, 60.0)


def _problem(settings: JobSettings, connection: Any, store: bool) -> str | None:
    failure = server_failure(connection)
    if failure is not None:
        return f"the database server does not answer ({failure})"
    failure = store_failure(settings) if store else None
    return None if failure is None else str(failure)


def store_failure(settings: JobSettings) -> ServerError | None:
    """Return why the store cannot be used; None if it can, and is the one with the models."""
    try:
        check_store(settings.storage)
        settings.store.check_identity()
    except ServerError as error:
        return error
    return None
