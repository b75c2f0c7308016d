"""Decides which job a worker takes up next, and when it has nothing left to do.

If the jobs of a table have taken milliseconds so far, a worker claims several in one transaction and does them one
after the other. If they take long after all, the heartbeat gives back those that have not begun.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from december_plugin.pool.jobs.job import Lease
from december_plugin.pool.jobs.leases import Leases
from december_plugin.pool.jobs.queue import JobQueue, TableQueue
from december_plugin.pool.worker.heartbeat import Heartbeat, WorkerIdentity, WorkerState
from december_plugin.pool.worker.job_log import job_log_path
from december_plugin.pool.worker.settings import WorkerReport, WorkerSettings

POLL_SECONDS = 5.0  # pause of a worker that waits for work
CLAIM_WITHOUT_CHECK_SECONDS = 0.25  # younger keys are claimed without checking the plan again
RECHECK_PLAN_SECONDS = 60.0  # re-check the plan before claiming an older key
QUICK_SECONDS = 0.05  # if a table's jobs take no longer, several are claimed at once
MAX_AT_ONCE = 16


@dataclass
class ClaimedJob:
    """A job whose lease a worker holds.

    Attributes
    ----------
    table, key, lease
        The job.
    log_file
        ``host:path`` of its log.
    has_begun
        Whether it counts as begun; one that was claimed with others does so only when it is taken up.
    """

    table: Any
    key: dict[str, Any]
    lease: Lease
    log_file: str
    has_begun: bool


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
        self._line: deque[ClaimedJob] = deque()
        self._sizes: dict[str, int] = {}

    @property
    def next_in_line(self) -> ClaimedJob | None:
        """The job that was claimed with the current one and follows it."""
        return self._line[0] if self._line else None

    def next(self) -> ClaimedJob | None:
        """Take up the next job that is free; None if there is none."""
        while self._line:
            job = self._line[0]
            has_begun = job.has_begun or self.leases.begin(self.connection, job.lease, log_file=job.log_file)
            self._line.popleft()  # not before: the server may be away
            if has_begun:
                return self._taken_up(job)
        while (found := self.queue.next()) is not None:
            queue, key = found
            others = queue.more(self._sizes.get(queue.table.table_name, 1) - 1)
            self._line.extend(self._claim(queue, [key, *others]))
            if self._line:
                self.state.claimed_at = time.monotonic()
                self._first_seen.clear()
                return self._taken_up(self._line.popleft())
        return None

    def claim(self, queue: TableQueue, key: dict[str, Any]) -> ClaimedJob | None:
        """Claim a job; None if another worker has it, or it is done or no longer planned."""
        return next(iter(self._claim(queue, [key])), None)

    def note(self, job: ClaimedJob, seconds: float) -> None:
        """Note how long a job took, which decides how many jobs of its table are claimed at once."""
        size = self._sizes.get(job.lease.job_table, 1)
        self._sizes[job.lease.job_table] = min(2 * size, MAX_AT_ONCE) if seconds <= QUICK_SECONDS else 1

    def _taken_up(self, job: ClaimedJob) -> ClaimedJob:
        self._idle_since = None
        self.state.n_in_line = len(self._line)
        return job

    def _claim(self, queue: TableQueue, keys: Sequence[dict[str, Any]]) -> list[ClaimedJob]:
        """Claim those of some jobs that are free, and begin the first of them."""
        table, wanted = queue.table, list(keys)
        if queue.age > CLAIM_WITHOUT_CHECK_SECONDS:
            wanted = _without(wanted, (table.proj() & wanted).fetch("KEY"))
        if wanted and queue.age > RECHECK_PLAN_SECONDS:
            planned = (table.key_source & wanted).fetch("KEY")
            wanted = [key for key in wanted if _values(key) in {_values(each) for each in planned}]
        if not wanted:
            queue.was_taken()
            return []
        claimed = self.leases.claim_several(
            table, wanted, self.identity.worker_id, log_file=lambda each: self._log_file(table, each)
        )
        queue.was_free() if 2 * len(claimed) > len(keys) else queue.was_taken()
        return [
            ClaimedJob(table, dict(key), lease, self._log_file(table, lease.job_hash), has_begun=number == 0)
            for number, (key, lease) in enumerate(claimed)
        ]

    def _log_file(self, table: Any, job_hash: str) -> str:
        path = job_log_path(self.log_folder, table.table_name, job_hash, self.identity.worker_id)
        return f"{self.identity.host}:{path}"

    def is_over(self) -> bool:
        """Return whether the worker may end after finding no job; if not, wait a while."""
        if self.state.state != "idle":
            self.state.end()
            self.heartbeat.beat_soon()
        settings, now = self.settings, time.monotonic()
        self._idle_since = self._idle_since or now
        # A claim whose commit ended with a lost connection was mistaken for another worker's.
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
        """Return whether a job is held by a worker without a heartbeat since this one became idle.

        A lease that has disappeared since the last call may have run out after this worker looked for a job.
        """
        ages = self.leases.others(self.connection, self.identity.worker_id)
        gone = self._first_seen.keys() - ages.keys()
        for holder in gone:
            del self._first_seen[holder]
        if gone:
            return True
        for holder in ages:
            self._first_seen.setdefault(holder, now)
        return any(age > now - self._first_seen[holder] for holder, age in ages.items())


def _without(keys: Sequence[dict[str, Any]], others: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    left_out = {_values(key) for key in others}
    return [key for key in keys if _values(key) not in left_out]


def _values(key: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, str(value)) for name, value in key.items()))
