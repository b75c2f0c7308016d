"""Waiting for what another process or thread does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

PATIENCE = 240.0  # seconds: trainings in processes of their own on machines that are busy


def wait_until(condition: Callable[[], Any], what: str | Callable[[], str], *, seconds: float = PATIENCE) -> Any:
    """Return what the condition returns as soon as that is true; fail, saying what did not happen, after some seconds.

    ``what`` may be a function, called when it is too late: it can tell how things are by then.
    """
    until = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > until:
            words = what if isinstance(what, str) else what()
            raise AssertionError(f"did not happen within {seconds:g} s: {words}")
        time.sleep(0.1)
    return value


def waits_for_lock(connection: Any) -> bool:
    """Whether a transaction of the server waits for a lock of another."""
    found = connection.query("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'")
    return bool(found.fetchone()[0])
