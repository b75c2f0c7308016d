"""Processes that fill the tables: workers, and the pools that keep them running.

Supervisors import nothing heavy: what a worker needs is imported when it is asked for.
"""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.pool.jobs.waiting import Job as Job
    from december_plugin.pool.jobs.waiting import TableStatus as TableStatus
    from december_plugin.pool.jobs.waiting import describe_jobs as describe_jobs
    from december_plugin.pool.jobs.waiting import table_statuses as table_statuses
    from december_plugin.pool.worker.loop import Worker as Worker
    from december_plugin.pool.worker.loop import WorkerReport as WorkerReport
    from december_plugin.pool.worker.loop import WorkerSettings as WorkerSettings

_NAMES = {
    "jobs.waiting": ["Job", "TableStatus", "describe_jobs", "table_statuses"],
    "worker.loop": ["Worker", "WorkerReport", "WorkerSettings"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
