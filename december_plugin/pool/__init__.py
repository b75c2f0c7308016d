"""Processes that fill the tables: workers, and the pools that keep them running.

Supervisors import nothing heavy: what a worker needs is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from december_plugin.pool.jobs import Job, TableStatus, describe_jobs, table_statuses
    from december_plugin.pool.worker import Worker, WorkerReport, WorkerSettings

__all__ = ["Job", "TableStatus", "Worker", "WorkerReport", "WorkerSettings", "describe_jobs", "table_statuses"]

_MODULES = {"Worker": "worker", "WorkerReport": "worker", "WorkerSettings": "worker"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES.get(name, 'jobs')}"), name)
