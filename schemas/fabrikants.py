"""Who is logged in, in the ``Fabrikant`` table that a lab uses."""

from __future__ import annotations

from typing import Any


def database_user(table: Any) -> str:
    """Return the name of the database user of a table's connection."""
    return str(table.connection.get_user().split("@")[0])


def fabrikant_of(table: Any) -> str | None:
    """Return the name of the database user's entry in this ``Fabrikant`` table, or None.

    nnfabrik's own ``get_current_user`` asks its core table, also where the lab has a table of its own.
    """
    names = (table & {"dj_username": database_user(table)}).fetch("fabrikant_name", limit=1)
    return str(names[0]) if len(names) else None
