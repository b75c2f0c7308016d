"""Leases: who may store a job, as long as its heartbeat is fresh.

A worker that takes up a job reserves it in DataJoint's ``~jobs`` and, in the same transaction, writes itself into
``PoolJob`` as the holder. When its heartbeat (``PoolWorker``) is older than its lease, any live worker gives the job
back. The row in ``PoolJob`` is written by both sides: by the holder in the transaction that stores the result, by the
others in the one that takes the lease away. So a worker that was only suspended or cut off notices before it stores.

If jobs take milliseconds, a worker claims several at once (:meth:`Leases.claim_several`). It holds all of them, but
each counts as begun only from when it is taken up: a worker that dies takes no attempt from the others.

The heartbeat's thread, the supervisor and the worker each do this on their own connection. Times are the database's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import pymysql

from december_plugin.errors import DecemberError
from december_plugin.importing.datajoint_internals import job_hash
from december_plugin.pool.jobs.job import Lease, ReleasedJob
from december_plugin.pool.jobs.records import PoolRecords, storable
from december_plugin.pool.transactions import transaction

CODES_LOCKED = (1020, 1205, 1213)  # another transaction was quicker, lock wait timeout, deadlock
MAX_COLLISIONS = 3  # in a row, with others that claim the same jobs


class LeaseLostError(DecemberError):
    """The lease of a job went to another worker, so its result must not be stored."""


class Leases:
    """The leases of one schema.

    Parameters
    ----------
    schema
        Name of the schema with ``PoolJob`` and ``PoolWorker``.
    max_attempts
        A job whose worker died this many times, with no new checkpoint in between, is not begun again.
    """

    def __init__(self, schema: str, *, max_attempts: int = 3):
        self.schema = schema
        self.max_attempts = max_attempts

    def _records(self, connection: Any) -> PoolRecords:
        return PoolRecords(connection, self.schema)

    # --- the holder's side ------------------------------------------------------------------------------------

    def claim(self, table: Any, key: Mapping[str, Any], worker_id: str, *, log_file: str = "") -> Lease | None:
        """Reserve a job, take its lease and begin it; None if another worker has it."""
        return next(iter(self.claim_several(table, [key], worker_id, log_file=lambda _: log_file)), (None, None))[1]

    def claim_several(
        self, table: Any, keys: Sequence[Mapping[str, Any]], worker_id: str, *, log_file: Callable[[str], str]
    ) -> list[tuple[Mapping[str, Any], Lease]]:
        """Reserve jobs, take their leases and begin the first one, in one transaction.

        The worker must :meth:`begin` each of the others before it works on it. Until then, it holds the job as if it
        were computing it, but no attempt counts.

        Parameters
        ----------
        table, keys
            The jobs, of one table.
        worker_id
            The holder.
        log_file
            Returns ``host:path`` of the log for the job with this hash.

        Returns
        -------
        list
            Keys and leases of the jobs that no other worker holds, beginning with the one that was begun; may be empty.
        """
        # Everything that locks several jobs takes them in the order of their hashes; otherwise they would deadlock.
        wanted = dict(sorted((job_hash(table, key), key) for key in keys))
        records = self._records(table.connection)
        records.make_queue(table)
        for _ in range(MAX_COLLISIONS):
            if not wanted:
                break
            first, *rest = wanted
            try:
                with transaction(table.connection):
                    if not records.reserve(table, wanted):
                        raise _NotClaimedError
                    begun = first, log_file(first)
                    n_starts = records.claim(table.database, table.table_name, worker_id, begun=begun, hashes=rest)
            except _NotClaimedError:
                # In the order of the plan, all workers want the same jobs; the first worker already has some of these.
                queued = set(records.queued_hashes(table)) if rest else {first}
                wanted = {each: key for each, key in wanted.items() if each not in queued}
            else:
                tokens = {each: n_starts[each] + (each != first) for each in wanted}
                return [
                    (key, Lease(table.database, table.table_name, each, worker_id, tokens[each]))
                    for each, key in wanted.items()
                ]
        return []

    def begin(self, connection: Any, lease: Lease, *, log_file: str) -> bool:
        """Begin a job that was claimed with others; return False if the lease went to another worker meanwhile."""
        return self._records(connection).begin(lease, log_file=log_file) or self.is_held(connection, lease)

    def is_held(self, connection: Any, lease: Lease) -> bool:
        """Return whether the lease is still valid."""
        holder = self._records(connection).holder(lease)
        return holder is not None and holder[:2] == (lease.worker_id, lease.n_starts)

    def was_lost(self, connection: Any, lease: Lease) -> bool:
        """Return whether the lease was taken away; one that its holder ended, as with a result, was not."""
        holder = self._records(connection).holder(lease)
        if holder is None:
            return True
        worker_id, n_starts, state = holder
        return n_starts != lease.n_starts or (worker_id != lease.worker_id and state not in ("done", "failed"))

    def note_progress(self, connection: Any, lease: Lease) -> None:
        """Note that the job has a new checkpoint: earlier deaths do not count as fruitless."""
        self._records(connection).forget_fruitless(lease)

    def end(self, connection: Any, lease: Lease, *, state: str = "done", message: str = "") -> bool:
        """End a lease and its reservation, within the transaction that is open; return False if the lease was lost.

        In the transaction that stores the result, this is the fence: either both happen or neither.
        """
        records = self._records(connection)
        if not records.end_lease(lease, state=state, message=message):
            return False
        records.end_reservation(lease)
        return True

    def finish(self, connection: Any, lease: Lease, *, state: str = "done", message: str = "") -> bool:
        """End a job that is done, or give it back (``free``); return False if the lease was lost meanwhile."""
        with transaction(connection):
            return self.end(connection, lease, state=state, message=message)

    def fail(self, table: Any, key: Mapping[str, Any], lease: Lease, *, message: str, stack: str) -> bool:
        """Record a failure with DataJoint; return False if the lease was lost meanwhile."""
        records, message = self._records(table.connection), storable(message)
        with transaction(table.connection):
            ended = records.end_lease(lease, state="failed", message=message)
            if ended:
                records.record_failure(table, key, message=message, stack=stack)
        return ended

    def release_all(self, connection: Any, worker_id: str, *, message: str) -> int:
        """Give back all jobs that a worker holds, as the worker itself does when it is interrupted; return how many."""
        held = self._records(connection).leases_of(worker_id)
        return sum(
            self.finish(connection, lease, state="free", message=message)
            if has_begun
            else self._give_back_not_begun(connection, lease)
            for lease, has_begun in held
        )

    def release_not_begun(self, connection: Any, worker_id: str) -> int:
        """Give back the jobs that a worker holds and has not begun, so that others do them sooner; return how many."""
        held = self._records(connection).leases_of(worker_id)
        return sum(self._give_back_not_begun(connection, lease) for lease, has_begun in held if not has_begun)

    def _give_back_not_begun(self, connection: Any, lease: Lease) -> bool:
        records = self._records(connection)
        with transaction(connection):
            given_back = records.give_back_not_begun(lease)
            if given_back:  # otherwise the worker has begun it a moment ago
                records.end_reservation(lease)
        return given_back

    # --- the others' side -------------------------------------------------------------------------------------

    def others(self, connection: Any, worker_id: str) -> dict[str, float]:
        """Return the other workers that hold leases, with the age of their heartbeats (s)."""
        return self._records(connection).other_holders(worker_id)

    def release_expired(self, connection: Any) -> list[ReleasedJob]:
        """Take away the leases of workers whose heartbeat is too old, with the attempt counted.

        A server that has been up for less than a lease cannot tell, because no worker could have written a heartbeat.
        """
        records = self._records(connection)
        expired = records.expired_leases(records.uptime())
        return self._take_all(
            records,
            (
                (lease, "its worker is unknown" if age is None else f"no heartbeat for {age:.0f} s")
                for lease, age in expired
            ),
        )

    def mark_dead(self, connection: Any, worker_id: str, message: str) -> list[ReleasedJob]:
        """Take away the leases of a worker whose process is known to have ended, with the attempts counted."""
        records, message = self._records(connection), storable(message)
        records.mark_worker_dead(worker_id, message)
        return self._take_all(records, [(lease, message) for lease, _ in records.leases_of(worker_id)], known_dead=True)

    def _take_all(
        self, records: PoolRecords, leases: Iterable[tuple[Lease, str]], *, known_dead: bool = False
    ) -> list[ReleasedJob]:
        found = []
        for number, (lease, message) in enumerate(leases):
            if number == 0:
                # A holder that stores its result at this moment has the row; this thread must not wait for it.
                records.wait_briefly_for_locks()
            try:
                found.append(self._take_away(records, lease, message, known_dead=known_dead))
            except pymysql.err.OperationalError as error:
                if error.args[0] not in CODES_LOCKED:
                    raise
        return [released for released in found if released is not None]

    def _take_away(self, records: PoolRecords, lease: Lease, message: str, *, known_dead: bool) -> ReleasedJob | None:
        with transaction(records.connection):
            before = records.lock_lease(lease, only_expired=not known_dead)
            if before is None:  # it is alive, or another worker was quicker
                return None
            n_deaths, n_fruitless, has_begun = before
            if not has_begun:  # what killed the worker was another job
                records.give_back_not_begun(lease)
                records.end_reservation(lease)
                records.presume_worker_dead(lease.worker_id, message)
                return None
            n_deaths, n_fruitless = n_deaths + 1, n_fruitless + 1
            poisoned = n_fruitless >= self.max_attempts
            state = "poisoned" if poisoned else "free"
            records.take_lease_away(lease, state=state, n_deaths=n_deaths, n_fruitless=n_fruitless, message=message)
            if poisoned:
                last = f"poisoned: {n_deaths} workers died while they computed it; the last one: {message}"
                records.poison(lease, last)
            else:
                records.end_reservation(lease)
            records.presume_worker_dead(lease.worker_id, message)
        return ReleasedJob(
            lease.job_schema, lease.job_table, lease.job_hash, lease.worker_id, n_deaths, n_fruitless, poisoned
        )


class _NotClaimedError(Exception):
    """Another worker has reserved one of the jobs."""
