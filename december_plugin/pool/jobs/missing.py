"""The keys that could be computed, on their own and by DataJoint's hashes of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from december_plugin.importing.datajoint_internals import job_hash


def missing_keys(table: Any) -> list[dict[str, Any]]:
    """Return the keys that ``populate`` would compute, whether reserved or not."""
    return (table.key_source.proj() - table.proj()).fetch("KEY")


def missing_query(table: Any) -> tuple[str, list[str]]:
    """Return the SQL of these keys, and the names of its columns."""
    missing = table.key_source.proj() - table.proj()
    return missing.make_sql(), list(missing.heading.names)


def hashed(table: Any, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Return keys by DataJoint's hash of them."""
    keys = (dict(zip(names, row, strict=True)) for row in rows)
    return {job_hash(table, key): key for key in keys}
