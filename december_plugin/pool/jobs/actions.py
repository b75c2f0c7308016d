"""Gives jobs back, or takes them out of the queue, while workers act on the same rows.

Every change is made in a transaction that holds the lock on the job's row of ``PoolJob``, as workers do when they store
a result and when they take away a lease. What a live worker holds is never touched.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import pymysql
from datajoint.hash import key_hash

from december_plugin.pool.jobs.leases import transaction
from december_plugin.pool.jobs.lookup import JobBook, JobRef
from december_plugin.pool.status.overview import AGE
from december_plugin.text.formatting import in_words

BATCH = 200  # jobs of one transaction: locks are held for milliseconds
COLLISIONS = (1020, 1205, 1213)  # another transaction was quicker; the same again succeeds
TRIES = 5

Result = TypeVar("Result")


@dataclass
class Outcome:
    """What was done: the jobs that were changed, and why others were not."""

    changed: list[JobRef] = field(default_factory=list)
    refused: list[tuple[JobRef, str]] = field(default_factory=list)


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
    book
        The jobs.
    stale
        Reservations that no worker of ours holds are freed if they are older than this (s); None leaves them alone.
    """

    def __init__(self, book: JobBook, *, stale: float | None = None):
        self.book, self.stale = book, stale
        self.connection = book.connection
        self._jobs = f"`{book.schema}`.`pool_job`"
        self._workers = f"`{book.schema}`.`pool_worker`"
        self._uptime = float(self.connection.query("SHOW GLOBAL STATUS LIKE 'Uptime'").fetchone()[1])

    def retry(self, refs: Sequence[JobRef]) -> Outcome:
        """Give jobs back, so that they are begun anew with all attempts: failed, poisoned, ignored or orphaned ones."""
        return self._in_batches(refs, self._retry)

    def ignore(self, refs: Sequence[JobRef]) -> Outcome:
        """Take jobs out of the queue: neither workers nor ``populate`` begin them."""
        return self._in_batches(refs, self._ignore)

    def forget(self, refs: Sequence[JobRef], plan: Any) -> Outcome:
        """Take planned jobs that were never done out of the plan, and remove what is recorded of them.

        Parameters
        ----------
        refs
            Jobs of one table, with their keys.
        plan
            The table of what is planned, whose primary key is that of the jobs' table.
        """
        return self._in_batches(refs, lambda batch: self._forget(batch, plan))

    def _in_batches(self, refs: Sequence[JobRef], act: Callable[[list[JobRef]], Outcome]) -> Outcome:
        total = Outcome()
        for batch in _batches(refs):
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

    def _retry(self, refs: list[JobRef]) -> Outcome:
        outcome = Outcome()
        with transaction(self.connection):
            rows = self._locked(refs)
            for ref in refs:
                refusal = self._refusal(rows[ref.job_hash])
                if refusal:
                    outcome.refused.append((ref, refusal))
                else:
                    outcome.changed.append(ref)
            if outcome.changed:
                table = outcome.changed[0].table
                hashes = [ref.job_hash for ref in outcome.changed]
                self._forget_attempts(table, hashes)
                self.connection.query(
                    f"DELETE FROM `{table.database}`.`~jobs` WHERE table_name = %s AND key_hash IN ({_places(hashes)})",
                    args=(table.table_name, *hashes),
                )
        return outcome

    def _forget(self, refs: list[JobRef], plan: Any) -> Outcome:
        outcome = Outcome()
        with transaction(self.connection):
            rows = self._locked(refs)
            done = {key_hash(refs[0].table._job_key(key)) for key in _done(refs)}
            for ref in refs:
                refusal = "is done by now" if ref.job_hash in done else self._in_work(rows[ref.job_hash])
                if refusal:
                    outcome.refused.append((ref, refusal))
                else:
                    outcome.changed.append(ref)
            if outcome.changed:
                table, hashes = refs[0].table, [ref.job_hash for ref in outcome.changed]
                # Not delete_quick(), which would write to ~log inside of the transaction.
                keys = [{name: ref.key[name] for name in plan.primary_key} for ref in outcome.changed if ref.key]
                self.connection.query(f"DELETE FROM {plan.full_table_name}{(plan & keys).where_clause()}")
                if table.database in self.book.databases:
                    self.connection.query(
                        f"DELETE FROM `{table.database}`.`~jobs` WHERE table_name = %s "
                        f"AND key_hash IN ({_places(hashes)})",
                        args=(table.table_name, *hashes),
                    )
                if self.book.has_pool_tables:
                    self.connection.query(
                        f"DELETE FROM {self._jobs} WHERE job_table = %s AND job_hash IN ({_places(hashes)})",
                        args=(table.table_name, *hashes),
                    )
        return outcome

    def _in_work(self, row: _Row) -> str:
        """Return who computes a job; empty for nobody."""
        if row.holder:
            return self._refusal_of_holder(row)
        if row.status == "reserved":
            return f"is reserved since {in_words(row.age)} by {row.process}; end that process first"
        return ""

    def _ignore(self, refs: list[JobRef]) -> Outcome:
        outcome = Outcome()
        with transaction(self.connection):
            rows = self._locked(refs)
            for ref in refs:
                row = rows[ref.job_hash]
                refusal = self._refusal(row) if row.status else self._cannot_begin(ref)
                if not refusal and not self._set_ignored(ref, row):
                    refusal = "was begun a moment ago"
                if refusal:
                    outcome.refused.append((ref, refusal))
                else:
                    outcome.changed.append(ref)
        return outcome

    def _cannot_begin(self, ref: JobRef) -> str:
        if ref.key is None:
            return "has a key that is not known"
        return "is done already" if ref.key in ref.table.proj() else ""

    def _set_ignored(self, ref: JobRef, row: _Row) -> bool:
        database = ref.table.database
        if not row.status:
            reservations = self.connection.schemas[database].jobs
            return reservations.ignore(ref.table.table_name, ref.table._job_key(dict(ref.key or {})))
        if row.status == "reserved":
            self._end_lease(ref.table, [ref.job_hash])
        self.connection.query(
            f"UPDATE `{database}`.`~jobs` SET status = 'ignore' WHERE table_name = %s AND key_hash = %s",
            args=(ref.table.table_name, ref.job_hash),
        )
        return True

    # --- under lock -----------------------------------------------------------------------------------------------

    def _locked(self, refs: list[JobRef]) -> dict[str, _Row]:
        """Lock the rows of jobs of one table and return what they say."""
        table, hashes = refs[0].table, [ref.job_hash for ref in refs]
        args = (table.table_name, *hashes)
        held: dict[str, tuple[Any, ...]] = {}
        if self.book.has_pool_tables:
            rows = self.connection.query(
                f"SELECT j.job_hash, j.job_state, j.worker_id, {AGE.format('w.heartbeat')}, COALESCE(w.lease, 0), "
                f"COALESCE(w.worker_host, '') FROM {self._jobs} j LEFT JOIN {self._workers} w USING (worker_id) "
                f"WHERE j.job_table = %s AND j.job_hash IN ({_places(hashes)}) FOR UPDATE",
                args=args,
            ).fetchall()
            held = {job_hash: tuple(rest) for job_hash, *rest in rows}
        queued: dict[str, tuple[Any, ...]] = {}
        if table.database in self.book.databases:
            rows = self.connection.query(
                "SELECT key_hash, status, TIMESTAMPDIFF(SECOND, `timestamp`, CURRENT_TIMESTAMP), host, pid "
                f"FROM `{table.database}`.`~jobs` WHERE table_name = %s AND key_hash IN ({_places(hashes)}) FOR UPDATE",
                args=args,
            ).fetchall()
            queued = {job_hash: tuple(rest) for job_hash, *rest in rows}
        found = {}
        for job_hash in hashes:
            status, age, host, pid = queued.get(job_hash, ("", 0, "", 0))
            state, holder, beat, lease, worker_host = held.get(job_hash, ("", "", None, 0.0, ""))
            beat = None if beat is None else float(beat)
            found[job_hash] = _Row(
                status, float(age), f"process {pid} on {host}", state, holder, beat, float(lease), worker_host
            )
        return found

    def _refusal(self, row: _Row) -> str:
        """Return why a job cannot be given back; empty if it can."""
        if row.status == "":
            given_up = not row.holder and row.state in ("failed", "poisoned")
            return "" if given_up else "is neither failed nor ignored nor reserved (any more)"
        if row.status != "reserved":
            return ""
        if row.holder:
            return self._refusal_of_holder(row)
        if self.stale is None:
            return (
                f"is reserved since {in_words(row.age)} by {row.process}, which is no worker with a heartbeat: a plain "
                "populate() or an older version. If that process is gone, add --stale"
            )
        if row.age < self.stale:
            return f"is reserved by {row.process} since {in_words(row.age)}, less than --stale {in_words(self.stale)}"
        return ""

    def _refusal_of_holder(self, row: _Row) -> str:
        worker = f"the worker {row.holder[:8]}" + (f" on {row.host}" if row.host else "")
        if row.heartbeat_age is not None and row.heartbeat_age <= row.lease:
            return (
                f"is computed by {worker}, which is alive (last heartbeat {in_words(row.heartbeat_age)} ago, lease "
                f"{in_words(row.lease)}); stop that worker first"
            )
        if self._uptime <= row.lease:
            return (
                f"is held by {worker}, and the database was started {in_words(self._uptime)} ago: whether the worker "
                f"lives is known {in_words(row.lease)} after the start"
            )
        return ""

    def _forget_attempts(self, table: Any, hashes: list[str]) -> None:
        self._end_lease(table, hashes)
        if self.book.has_pool_tables:
            self.connection.query(
                f"UPDATE {self._jobs} SET n_deaths = 0, n_fruitless = 0, job_state = 'free' WHERE job_table = %s "
                f"AND job_hash IN ({_places(hashes)})",
                args=(table.table_name, *hashes),
            )

    def _end_lease(self, table: Any, hashes: list[str]) -> None:
        """Take the leases of dead workers away; a worker that was only suspended finds out before it stores."""
        if self.book.has_pool_tables:
            self.connection.query(
                f"UPDATE {self._jobs} SET worker_id = '', job_state = 'free', ended = UTC_TIMESTAMP(6), last_words = "
                "'taken away by hand from a worker without a heartbeat' WHERE job_table = %s "
                f"AND job_hash IN ({_places(hashes)}) AND worker_id <> ''",
                args=(table.table_name, *hashes),
            )


def _batches(refs: Sequence[JobRef]) -> Iterator[list[JobRef]]:
    """Yield jobs of one table at a time, in the order of their hashes, which all who lock several keep."""
    by_table: dict[str, dict[str, JobRef]] = {}
    for ref in refs:
        by_table.setdefault(ref.table.full_table_name, {})[ref.job_hash] = ref
    for of_table in by_table.values():
        ordered = [of_table[job_hash] for job_hash in sorted(of_table)]
        for start in range(0, len(ordered), BATCH):
            yield ordered[start : start + BATCH]


def _done(refs: list[JobRef]) -> list[dict[str, Any]]:
    """Return the keys of those that are in their table by now."""
    return list((refs[0].table & [ref.key for ref in refs]).fetch("KEY"))


def _places(values: Sequence[Any]) -> str:
    return ", ".join(["%s"] * len(values))
