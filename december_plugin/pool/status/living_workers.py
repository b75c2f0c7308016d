"""Which workers of a server are alive, in any schema."""

from __future__ import annotations

from typing import Any

from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.liveness import WorkerStatus


def living_workers(connection: Any) -> list[tuple[str, WorkerStatus]]:
    """Return the workers of all schemas of a server that are alive, with their schemas.

    Workers on this host whose processes have ended do not count, even if their heartbeats are recent.
    """
    return [
        (schema, worker)
        for schema in PoolRecords.schemas_with_workers(connection)
        for worker in PoolRecords(connection, schema).workers_at_work()
        if worker.alive and not worker.process_is_gone
    ]
