"""Transactions on a DataJoint connection: all or nothing, and reading several tables at one moment."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from december_plugin.importing.datajoint_internals import forget_transaction, has_transaction


@contextmanager
def transaction(connection: Any) -> Iterator[None]:
    """Commit at the end of the block, roll back after an exception of any kind."""
    connection.start_transaction()
    try:
        yield
        connection.commit_transaction()
    except BaseException:
        leave_transaction(connection)
        raise


def leave_transaction(connection: Any) -> None:
    """Roll back the open transaction; the server itself does so after a lost connection."""
    if has_transaction(connection):
        with suppress(Exception):
            connection.cancel_transaction()
        forget_transaction(connection)


@contextmanager
def snapshot(connection: Any) -> Iterator[None]:
    """Let all queries of a block see the tables at the same moment, so that the numbers fit together."""
    if connection.in_transaction:
        yield
        return
    connection.start_transaction()
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.cancel_transaction()
