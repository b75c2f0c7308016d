"""Restrictions of tables that DataJoint does not accept: queries with shared columns, and values with double quotes.

DataJoint 0.14 writes a text of a restriction between double quotes without doubling those in it, so that a name such as
``the "big" ones`` is a syntax error, and part of the query. While our tables are in use, its quotes are doubled first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import datajoint as dj
import datajoint.condition
import datajoint.expression
import datajoint.table
import numpy as np


def restricted(query: Any, restriction: Any) -> Any:
    """Return ``query & restriction``, where the restriction may be another query with shared columns.

    DataJoint refuses to restrict a table by a query with the same secondary attributes, such as a selection from the
    table itself; so only the primary key of a query is used.
    """
    if isinstance(restriction, dj.U):
        return query & restriction
    if isinstance(restriction, type) and issubclass(restriction, dj.Table):
        restriction = restriction()
    if isinstance(restriction, dj.expression.QueryExpression):
        restriction = restriction.proj()
    return query & restriction


_USERS = (datajoint.condition, datajoint.expression, datajoint.table)
_make_condition = datajoint.condition.make_condition


def make_condition(query_expression: Any, condition: Any, columns: set[str]) -> Any:
    """Make a condition as DataJoint does, from values whose double quotes are doubled."""
    negated = []
    while isinstance(condition, datajoint.condition.Not):
        negated.append(condition)
        condition = condition.restriction
    if isinstance(condition, np.void) and any(_has_quote(condition[name]) for name in condition.dtype.names or ()):
        condition = {name: condition[name] for name in condition.dtype.names or ()}
    if isinstance(condition, Mapping) and any(map(_has_quote, condition.values())):
        condition = {
            name: value.replace('"', '""') if _has_quote(value) else value for name, value in condition.items()
        }
    for _ in negated:
        condition = datajoint.condition.Not(condition)
    return _make_condition(query_expression, condition, columns)


def install_quoting() -> None:
    """Double quotes in restrictions from now on; calling it again does nothing."""
    for module in _USERS:
        if getattr(module, "make_condition", None) is _make_condition:
            module.make_condition = make_condition


def _has_quote(value: Any) -> bool:
    return isinstance(value, str) and '"' in value


def of_trainers(patterns: Iterable[str]) -> str:
    """Return the SQL condition that a trainer's function fits one of the patterns, in which ``*`` is anything."""
    return like("trainer_fn", patterns)


def like(column: str, patterns: Iterable[str]) -> str:
    """Return the SQL condition that a column fits one of the patterns, in which ``*`` is anything; as :func:`fits`."""
    # SQL's own would ignore case, and take _ for any character. DataJoint takes words in small letters for columns.
    exactly = f"CONVERT({column} USING UTF8MB4) COLLATE UTF8MB4_BIN LIKE"
    return " OR ".join(f"{exactly} '{_sql_pattern(pattern)}' ESCAPE '|'" for pattern in patterns) or "FALSE"


def _sql_pattern(pattern: str) -> str:
    """Return a pattern as it is written between single quotes in SQL, with ``|`` as the escape character."""
    escaped = re.sub(r"([|%_])", r"|\1", pattern).replace("*", "%")
    return escaped.replace("\\", "\\\\").replace("'", "''")


def fits(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a name fits one of the patterns, in which ``*`` is anything."""
    return any(re.fullmatch(".*".join(map(re.escape, pattern.split("*"))), name) for pattern in patterns)
