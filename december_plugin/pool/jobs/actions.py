"""Gives jobs back, or takes them out of the queue, while workers act on the same rows.

Every change is made in a transaction that holds the lock on the job's row of ``PoolJob``, as workers do when they store
a result and when they take a lease away. Jobs that a live worker holds are never touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pymysql

from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.pool.jobs.job import Job
from december_plugin.pool.jobs.lookup import JobLookup
from december_plugin.pool.jobs.missing import missing_keys
from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.transactions import transaction
from december_plugin.text.formatting import format_duration

BATCH = 200  # jobs per transaction, so that locks are held for milliseconds
COLLISIONS = (1020, 1205, 1213)  # another transaction was quicker; a retry succeeds
TRIES = 5

Result = TypeVar("Result")


@dataclass
class Outcome:
    """The outcome: the jobs that were changed, and why others were not."""

    changed: list[Job] = field(default_factory=list)
    refused: list[tuple[Job, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Row:
    """A job's rows under lock: its status in ``~jobs`` (empty for none), and who holds it."""

    status: str
    age: float  # of the row in ~jobs (s)
    process: str
    state: str  # in PoolJob
    holder: str
    heartbeat_age: float | None
    lease: float
    host: str


class JobActions:
    """Retry and ignore.

    Parameters
    ----------
    lookup
        The jobs.
    stale
        Reservations that no worker of ours holds are freed if they are older than this (s); None leaves them alone.
    """

    def __init__(self, lookup: JobLookup, *, stale: float | None = None):
        self.lookup, self.stale = lookup, stale
        self.records = lookup.records
        self._uptime = self.records.uptime()

    def retry(self, jobs: Sequence[Job]) -> Outcome:
        """Return failed, poisoned, ignored or orphaned jobs to the queue, with all attempts."""
        return self._in_batches(jobs, self._retry)

    def ignore(self, jobs: Sequence[Job]) -> Outcome:
        """Take jobs out of the queue: neither workers nor ``populate`` begin them."""
        return self._in_batches(jobs, self._ignore)

    def forget(self, jobs: Sequence[Job], plan: Any) -> Outcome:
        """Take planned jobs that were never done out of the plan, and remove their records.

        Parameters
        ----------
        jobs
            Jobs of one table, with their keys.
        plan
            The table of what is planned, whose primary key is that of the jobs' table.
        """
        return self._in_batches(jobs, lambda batch: self._forget(batch, plan))

    def _in_batches(self, jobs: Sequence[Job], act: Callable[[list[Job]], Outcome]) -> Outcome:
        total = Outcome()
        for batch in _batches(jobs):
            outcome = self._again(lambda batch=batch: act(batch))  # type: ignore[misc]
            total.changed += outcome.changed
            total.refused += outcome.refused
        return total

    @staticmethod
    def _again(step: Callable[[], Result]) -> Result:
        for attempt in range(TRIES):
            try:
                return step()
            except pymysql.err.MySQLError as error:
                if attempt == TRIES - 1 or not error.args or error.args[0] not in COLLISIONS:
                    raise
            time.sleep(0.05 * 2**attempt)
        raise AssertionError  # the last attempt returns or raises

    def _retry(self, jobs: list[Job]) -> Outcome:
        outcome = Outcome()
        with transaction(self.records.connection):
            rows = self._locked(jobs)
            for job in jobs:
                refusal = self._refusal(rows[job.job_hash])
                if refusal:
                    outcome.refused.append((job, refusal))
                else:
                    outcome.changed.append(job)
            if outcome.changed:
                table = self.lookup.table(jobs[0])
                hashes = [job.job_hash for job in outcome.changed]
                self._end_leases(table, hashes)
                if self.lookup.has_pool_tables:
                    self.records.renew_attempts(table.table_name, hashes)
                self.records.delete_queued(table.database, table.table_name, hashes)
        return outcome

    def _forget(self, jobs: list[Job], plan: Any) -> Outcome:
        outcome = Outcome()
        with transaction(self.records.connection):
            rows = self._locked(jobs)
            table = self.lookup.table(jobs[0])
            done = {job_hash(table, key) for key in (table & [job.key for job in jobs]).fetch("KEY")}
            for job in jobs:
                refusal = "is done already" if job.job_hash in done else self._in_work(rows[job.job_hash])
                if refusal:
                    outcome.refused.append((job, refusal))
                else:
                    outcome.changed.append(job)
            if outcome.changed:
                hashes = [job.job_hash for job in outcome.changed]
                # Not delete_quick(), which would write to ~log inside the transaction.
                keys = [{name: job.key[name] for name in plan.primary_key} for job in outcome.changed if job.key]
                self.records.connection.query(f"DELETE FROM {plan.full_table_name}{(plan & keys).where_clause()}")
                if table.database in self.lookup.databases:
                    self.records.delete_queued(table.database, table.table_name, hashes)
                if self.lookup.has_pool_tables:
                    self.records.delete_jobs(table.table_name, hashes)
        return outcome

    def _in_work(self, row: _Row) -> str:
        """Return which process computes a job; empty if none does."""
        if row.holder:
            return self._refusal_of_holder(row)
        if row.status == "reserved":
            return f"has been reserved by {row.process} for {format_duration(row.age)}; end that process first"
        return ""

    def _ignore(self, jobs: list[Job]) -> Outcome:
        outcome = Outcome()
        with transaction(self.records.connection):
            rows = self._locked(jobs)
            for job in jobs:
                row = rows[job.job_hash]
                refusal = self._refusal(row) if row.status else self._cannot_begin(job)
                if not refusal and not self._set_ignored(job, row):
                    refusal = "was begun a moment ago"
                if refusal:
                    outcome.refused.append((job, refusal))
                else:
                    outcome.changed.append(job)
        return outcome

    def _cannot_begin(self, job: Job) -> str:
        if job.key is None:
            return "has an unknown key"
        return "is done already" if job.key in self.lookup.table(job).proj() else ""

    def _set_ignored(self, job: Job, row: _Row) -> bool:
        table = self.lookup.table(job)
        if not row.status:
            return self.records.ignore(table, job.key or {})
        if row.status == "reserved":
            self._end_leases(table, [job.job_hash])
        self.records.set_ignored(table.database, table.table_name, job.job_hash)
        return True

    # --- under lock -----------------------------------------------------------------------------------------------

    def _locked(self, jobs: list[Job]) -> dict[str, _Row]:
        """Lock the rows of jobs of one table and return what they say."""
        table, hashes = self.lookup.table(jobs[0]), [job.job_hash for job in jobs]
        held, queued = {}, {}
        if self.lookup.has_pool_tables:
            held = self.records.lock_holders(table.table_name, hashes)
        if table.database in self.lookup.databases:
            queued = self.records.lock_queued(table.database, table.table_name, hashes)
        found = {}
        for each in hashes:
            status, age, host, pid = queued.get(each, ("", 0.0, "", 0))
            found[each] = _Row(status, age, f"process {pid} on {host}", *held.get(each, ("", "", None, 0.0, "")))
        return found

    def _refusal(self, row: _Row) -> str:
        """Return why a job cannot be given back; empty if it can."""
        if row.status == "":
            given_up = not row.holder and row.state in ("failed", "poisoned")
            return "" if given_up else "is not failed, ignored or reserved (any more)"
        if row.status != "reserved":
            return ""
        if row.holder:
            return self._refusal_of_holder(row)
        if self.stale is None:
            return (
                f"has been reserved for {format_duration(row.age)} by {row.process}, which is not a worker with a "
                "heartbeat but a plain populate(). If that process is gone, add --stale"
            )
        if row.age < self.stale:
            age, stale = format_duration(row.age), format_duration(self.stale)
            return f"has been reserved by {row.process} for {age}, which is less than --stale {stale}"
        return ""

    def _refusal_of_holder(self, row: _Row) -> str:
        worker = f"the worker {row.holder[:8]}" + (f" on {row.host}" if row.host else "")
        if row.heartbeat_age is not None and row.heartbeat_age <= row.lease:
            return (
                f"is being computed by {worker}, which is alive (last heartbeat {format_duration(row.heartbeat_age)} "
                f"ago, lease {format_duration(row.lease)}); stop that worker first"
            )
        if self._uptime <= row.lease:
            return (
                f"is held by {worker}, and the database was started only {format_duration(self._uptime)} ago: it "
                f"takes {format_duration(row.lease)} after the start to tell whether the worker is alive"
            )
        return ""

    def _end_leases(self, table: Any, hashes: list[str]) -> None:
        """Take the leases of dead workers away; a worker that was only suspended finds out before it stores."""
        if self.lookup.has_pool_tables:
            self.records.take_leases_away_by_hand(table.table_name, hashes)


def _batches(jobs: Sequence[Job]) -> Iterator[list[Job]]:
    """Yield jobs of one table at a time, in the order of their hashes, as for all locks of several jobs."""
    by_table: dict[str, dict[str, Job]] = {}
    for job in jobs:
        by_table.setdefault(job.table, {})[job.job_hash] = job
    for of_table in by_table.values():
        ordered = [of_table[each] for each in sorted(of_table)]
        for start in range(0, len(ordered), BATCH):
            yield ordered[start : start + BATCH]


def clear_failures(table: Any, schema: str) -> int:
    """Forget failures of what a worker would compute, so that it is tried again; return how many there were.

    Parameters
    ----------
    table
        An instance of a computed table.
    schema
        Name of the schema with ``PoolJob``, in which jobs that were given up get all their attempts back.
    """
    records = PoolRecords(table.connection, schema)
    wanted = {job_hash(table, key) for key in missing_keys(table)}
    failed = [found for found in records.queued_hashes(table, status="error") if found in wanted]
    for start in range(0, len(failed), BATCH):
        hashes = failed[start : start + BATCH]
        with transaction(table.connection):
            records.renew_attempts_of_given_up(table.table_name, hashes)
            # Another worker may have done the same a moment ago, and a third may have begun such a job.
            records.delete_queued(table.database, table.table_name, hashes, status="error")
    return len(failed)
