"""Which pools are meant, and which workers of a server are alive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from december_plugin.errors import SettingsError
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.liveness import SHORT, PoolStatus, WorkerStatus


def living_workers(connection: Any) -> list[tuple[str, WorkerStatus]]:
    """Return the workers of all schemas of a server that are alive, with their schemas.

    Those of this host whose processes are gone do not count, though their heartbeats may be young.
    """
    return [
        (schema, worker)
        for schema in PoolRecords.schemas_with_workers(connection)
        for worker in PoolRecords(connection, schema).workers_at_work()
        if worker.alive and not worker.process_is_gone
    ]


def choose_pools(found: Sequence[PoolStatus], beginning: str | None) -> list[PoolStatus]:
    """Return the pools whose id begins like this, or all.

    Raises
    ------
    SettingsError
        If there is none.
    """
    if beginning is None:
        return list(found)
    chosen = [pool for pool in found if pool.pool_id.startswith(beginning.lower())]
    if not chosen:
        there = ", ".join(pool.pool_id[:SHORT] for pool in found)
        raise SettingsError(
            f"no pool whose id begins with {beginning!r} is running. "
            + (f"Running: {there}." if there else "None is running in this schema.")
        )
    return chosen
