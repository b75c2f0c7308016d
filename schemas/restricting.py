"""Restricting a table by whatever a user has at hand."""

from __future__ import annotations

from typing import Any

import datajoint as dj


def restricted(query: Any, restriction: Any) -> Any:
    """Return ``query & restriction``, where the restriction may be another query that has columns in common.

    DataJoint refuses to restrict a table by a query with the same secondary attributes, such as a selection from the
    table itself; of a query, only the primary key is meant.
    """
    if isinstance(restriction, dj.U):
        return query & restriction
    if isinstance(restriction, type) and issubclass(restriction, dj.Table):
        restriction = restriction()
    if isinstance(restriction, dj.expression.QueryExpression):
        restriction = restriction.proj()
    return query & restriction
