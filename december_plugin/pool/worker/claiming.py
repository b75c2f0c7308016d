"""Which job a worker takes up next, and when it has nothing to do any more."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.pool.jobs.job import Lease
from december_plugin.pool.jobs.leases import Leases
from december_plugin.pool.jobs.queue import JobQueue, TableQueue
from december_plugin.pool.worker.heartbeat import Heartbeat, WorkerIdentity, WorkerState
from december_plugin.pool.worker.job_log import job_log_path
from december_plugin.pool.worker.settings import WorkerReport, WorkerSettings

POLL_SECONDS = 5.0  # pause of a worker that waits for work
CLAIM_WITHOUT_CHECK_SECONDS = 0.25  # keys that are younger are claimed without another look
RECHECK_PLAN_SECONDS = 60.0  # before a key that is older is claimed, the plan is asked again


class JobClaimer:
    """Claims jobs for a worker.

    Parameters
    ----------
    queue
        The jobs of the tables that the worker fills.
    leases, identity, state, heartbeat, settings, report
        Of the worker.
    connection
        To the database.
    log_folder
        For the logs of jobs.
    """

    def __init__(
        self,
        queue: JobQueue,
        leases: Leases,
        *,
        identity: WorkerIdentity,
        state: WorkerState,
        heartbeat: Heartbeat,
        settings: WorkerSettings,
        report: WorkerReport,
        connection: Any,
        log_folder: Path,
    ):
        self.queue, self.leases, self.identity = queue, leases, identity
        self.state, self.heartbeat = state, heartbeat
        self.settings, self.report = settings, report
        self.connection, self.log_folder = connection, log_folder
        self._idle_since: float | None = None
        self._first_seen: dict[str, float] = {}

    def next(self) -> tuple[Any, dict[str, Any], Lease] | None:
        """Claim the next job that is free; return its table, key and lease, or None if there is none."""
        while (found := self.queue.next()) is not None:
            queue, key = found
            lease = self.claim(queue, key)
            if lease is not None:
                self._idle_since = None
                self._first_seen.clear()
                return queue.table, key, lease
        return None

    def claim(self, queue: TableQueue, key: dict[str, Any]) -> Lease | None:
        """Claim a job; None if another worker has it, or it is done or no longer planned."""
        table = queue.table
        if queue.age > CLAIM_WITHOUT_CHECK_SECONDS and key in table.proj():
            queue.was_taken()
            return None
        if queue.age > RECHECK_PLAN_SECONDS and not len(table.key_source & key):  # no longer planned
            return None
        log = job_log_path(self.log_folder, table.table_name, job_hash(table, key), self.identity.worker_id)
        lease = self.leases.claim(table, key, self.identity.worker_id, log_file=f"{self.identity.host}:{log}")
        queue.was_taken() if lease is None else queue.was_free()
        return lease

    def is_over(self) -> bool:
        """Return whether the worker may end, after it found no job; if not, wait a while."""
        if self.state.state != "idle":
            self.state.end()
            self.heartbeat.beat_soon()
        settings, now = self.settings, time.monotonic()
        self._idle_since = self._idle_since or now
        # A claim whose commit was answered by a lost connection was taken for another worker's.
        if self.leases.release_all(self.connection, self.identity.worker_id, message="its worker did not know of it"):
            return False
        if self._others_may_be_dead(now):
            time.sleep(min(0.5, settings.lease / 10))
            return False
        if settings.poll is None and settings.idle_exit is None:
            return True
        if settings.idle_exit is not None and now - self._idle_since >= settings.idle_exit:
            self.report.ended_by = f"no work for {settings.idle_exit:g} s"
            return True
        pause = POLL_SECONDS if settings.poll is None else settings.poll
        if settings.idle_exit is not None:
            pause = min(pause, max(0.05, self._idle_since + settings.idle_exit - now))
        time.sleep(pause)
        return False

    def _others_may_be_dead(self, now: float) -> bool:
        """Return whether a job is held by a worker that has not shown a heartbeat since this one became idle."""
        ages = self.leases.others(self.connection, self.identity.worker_id)
        for holder in ages:
            self._first_seen.setdefault(holder, now)
        return any(age > now - self._first_seen[holder] for holder, age in ages.items())
