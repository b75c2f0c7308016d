"""Processes that fill the tables: workers, and the pools that keep them running.

Supervisors import nothing heavy: what a worker needs is imported on first use.
"""

from typing import TYPE_CHECKING

import lazy_loader as _lazy

if TYPE_CHECKING:
    from december_plugin.pool.jobs.description import describe_jobs as describe_jobs
    from december_plugin.pool.jobs.job import Job as Job
    from december_plugin.pool.liveness import PoolStatus as PoolStatus
    from december_plugin.pool.liveness import WorkerStatus as WorkerStatus
    from december_plugin.pool.status.overview import Overview as Overview
    from december_plugin.pool.status.overview import read_overview as read_overview
    from december_plugin.pool.worker.loop import Worker as Worker
    from december_plugin.pool.worker.settings import WorkerReport as WorkerReport
    from december_plugin.pool.worker.settings import WorkerSettings as WorkerSettings

_NAMES = {
    "jobs.description": ["describe_jobs"],
    "jobs.job": ["Job"],
    "liveness": ["PoolStatus", "WorkerStatus"],
    "status.overview": ["Overview", "read_overview"],
    "worker.loop": ["Worker"],
    "worker.settings": ["WorkerReport", "WorkerSettings"],
}
__getattr__, __dir__, __all__ = _lazy.attach(__name__, submod_attrs=_NAMES)
