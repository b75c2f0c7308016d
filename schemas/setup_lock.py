"""Lets only one process at a time create tables, register or forget: several would interfere with each other.

The lock is the server's own (``GET_LOCK``). It needs no rights, and ends with the connection, so that a
killed process leaves no lock behind.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

from datajoint.errors import DataJointError

from december_plugin.database.outages import CONNECTION_ERRORS
from december_plugin.errors import ServerError

LONGEST_WAIT = 600  # s


def changing_the_plan(connection: Any, schema: str) -> contextlib.AbstractContextManager[None]:
    """Hold the lock for registering or forgetting in a schema, where entries are looked up first and written later."""
    return one_at_a_time(connection, f"changing the plan of the schema {schema!r}")


@contextlib.contextmanager
def one_at_a_time(connection: Any, what: str, *, longest: int = LONGEST_WAIT) -> Iterator[None]:
    """Hold the server's lock of this name inside a with block; wait while another connection has it.

    Parameters
    ----------
    connection
        DataJoint's connection.
    what
        What only one process may do, in words, e.g. ``"making december's tables"``.
    longest
        How long to wait (s).

    Raises
    ------
    ServerError
        If another connection keeps it longer than that.
    """
    name = f"december-{hashlib.md5(what.encode(), usedforsecurity=False).hexdigest()}"  # at most 64 characters
    (got,) = connection.query("SELECT GET_LOCK(%s, %s)", args=(name, longest)).fetchone()
    if got != 1:
        (holder,) = connection.query("SELECT IS_USED_LOCK(%s)", args=(name,)).fetchone()
        raise ServerError(
            f"another process has been {what} for more than {longest} s (connection {holder} of the database server). "
            "Wait until it ends, or end it, and try again."
        )
    try:
        yield
    finally:
        with contextlib.suppress(*CONNECTION_ERRORS, DataJointError):  # it ended with the connection
            connection.query("SELECT RELEASE_LOCK(%s)", args=(name,))
