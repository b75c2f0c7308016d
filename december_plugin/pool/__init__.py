"""Processes that fill the tables."""

from december_plugin.pool.jobs import Job, TableStatus, describe_jobs, table_statuses
from december_plugin.pool.worker import Worker, WorkerReport, WorkerSettings

__all__ = ["Job", "TableStatus", "Worker", "WorkerReport", "WorkerSettings", "describe_jobs", "table_statuses"]
