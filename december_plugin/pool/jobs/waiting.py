"""What is waiting: the keys that could be computed, and failures that are to be tried again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.transactions import transaction

BATCH = 200  # failures that are forgotten in one transaction


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


def clear_failures(table: Any, schema: str) -> int:
    """Forget the failures of what a worker would compute, so that it is tried again; return how many.

    Parameters
    ----------
    table
        An instance of a computed table.
    schema
        Name of the schema with ``PoolJob``, where jobs that were given up get all attempts again.
    """
    records = PoolRecords(table.connection, schema)
    wanted = {job_hash(table, key) for key in missing_keys(table)}
    failed = [found for found in records.queued_hashes(table, status="error") if found in wanted]
    for start in range(0, len(failed), BATCH):
        hashes = failed[start : start + BATCH]
        with transaction(table.connection):
            records.renew_attempts_of_given_up(table.table_name, hashes)
            # Another worker may have done the same a moment ago, and a third have begun such a job.
            records.delete_queued(table.database, table.table_name, hashes, status="error")
    return len(failed)
