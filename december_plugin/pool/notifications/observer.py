"""Watches the jobs of a schema, in one pool among all that would notify the same target.

Several pools may run on a schema, and each task of a Slurm array is one. The one that holds a named lock of the server
reports what happens to all jobs, no matter which pool computes them; the others wait, and one of them takes over when
it ends or loses its connection. So each event is reported once. Events before a pool began to report are not reported.

There is one exception: if the pool that reports loses its connection, another one reports what happens meanwhile and
ends, and the first one gets the lock back, then the first one reports it again. Only the lock is shared, so that it
cannot know about the other; reporting something twice is better than not reporting it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from datajoint.utils import to_camel_case

from december_plugin.pool.jobs.records import PoolRecords
from december_plugin.pool.liveness import WorkerStatus
from december_plugin.pool.notifications.outbox import Event
from december_plugin.pool.status.failures import normalised
from december_plugin.text.formatting import format_duration, numbered

SETTLED_SECONDS = 15.0  # idle workers look for work every five seconds
WAITING_SECONDS = 600.0  # of workers for server or store, after which it is reported
SILENT_SECONDS = 30  # after which the server gives the lock of a machine that is gone to another
BUSY = ("working", "waiting")  # states of workers, including one that is still looking for its first job
OVERLAP = timedelta(seconds=60)  # transactions may become visible later than the times that they wrote


def lock_name(schema: str, target: str) -> str:
    """Return the name of the server's lock for notifying a target about a schema; it reveals neither."""
    return "december_notify_" + hashlib.sha256(f"{schema}\0{target}".encode()).hexdigest()[:32]


class Observer:
    """Looks for events; for one thread.

    Parameters
    ----------
    schema
        Where the tables of pools are.
    lock
        Name of the lock, see :func:`lock_name`.
    connect
        Opens the thread's own connection.
    clock
        Replaced by tests.
    """

    def __init__(
        self, schema: str, lock: str, *, connect: Callable[[], Any], clock: Callable[[], float] = time.monotonic
    ):
        self.schema, self.lock, self.clock = schema, lock, clock
        self._connect, self._connection = connect, None
        self.is_telling = False
        self._began: datetime | None = None  # when this pool began to report, on the database's clock, or None
        self._horizon = datetime.min
        self._seen: set[tuple[Any, ...]] = set()
        self._told_end: datetime | None = None  # end of the last job when the end of the work was reported
        self._quiet: tuple[datetime, float] | None = None  # end of the last job, and since when all are idle
        self._waiting: dict[str, float] = {}  # reasons for which workers wait, since when
        self._told_waiting: set[str] = set()

    def look(self, *, ends_idle: bool = False) -> list[Event]:
        """Return what has happened since the last call, or nothing if another pool reports it.

        Parameters
        ----------
        ends_idle
            Whether the pool ends because its workers had nothing to do; then it is certain that this stays so.

        Raises
        ------
        Exception
            Of the server, the network or the driver; call again later.
        """
        if self._connection is None:
            self._connection = self._connect()
        records = PoolRecords(self._connection, self.schema)
        if not self._may_tell(records):
            return []
        return [*self._given_up(records), *self._finished(records, ends_idle), *self._long_waits(records)]

    def close(self) -> None:
        """Close the connection, and give the lock to another pool."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _may_tell(self, records: PoolRecords) -> bool:
        # A lost connection is reopened automatically, without the lock.
        if records.holds_lock(self.lock):
            return True
        self.is_telling = records.take_lock(self.lock)
        if not self.is_telling:
            self._began = None
            return False
        records.end_when_silent(SILENT_SECONDS)
        if self._began is None:  # otherwise it had the lock before, and continues from what it had seen
            self._begin(records)
        return True

    def _begin(self, records: PoolRecords) -> None:
        self._began = self._horizon = records.now()
        self._seen = {row[:4] for row in records.given_up_since(self._began - OVERLAP)}
        self._told_end, self._quiet = records.last_end(), None

    def _given_up(self, records: PoolRecords) -> list[Event]:
        now = records.now()
        rows = records.given_up_since(self._horizon - OVERLAP)
        self._horizon = now
        events = []
        for table, job_hash, state, n_starts, words in rows:
            if (table, job_hash, state, n_starts) not in self._seen:
                self._seen.add((table, job_hash, state, n_starts))
                events.append(Event(state, words, to_camel_case(table.strip("_#")), job_hash))
        return events

    def _finished(self, records: PoolRecords, ends_idle: bool) -> list[Event]:
        last = records.last_end()
        if last is None or last == self._told_end or records.other_holders(""):
            self._quiet = None
            return []
        workers = [worker for worker in records.workers_at_work() if worker.alive]
        if any(worker.state in BUSY for worker in workers) or not (workers or ends_idle):
            self._quiet = None
            return []
        if self._quiet is None or self._quiet[0] != last:
            self._quiet = last, self.clock()
        if not ends_idle and self.clock() - self._quiet[1] < SETTLED_SECONDS:
            return []
        self._told_end = last
        assert self._began is not None
        counts = records.count_ended(self._began)
        words = ", ".join(f"{counts.get(state, 0):,} {state}" for state in ("done", "failed", "poisoned"))
        text = (
            f"december: nothing is left to do in the schema {self.schema} for the running workers: {words} since "
            f"{self._began:%Y-%m-%d %H:%M} UTC"
        )
        return [Event("finished", text, counts=counts)]

    def _long_waits(self, records: PoolRecords) -> list[Event]:
        waiting: dict[str, list[WorkerStatus]] = {}
        for worker in records.workers_at_work():
            if worker.alive and worker.state == "waiting":
                waiting.setdefault(normalised(worker.detail), []).append(worker)
        now = self.clock()
        self._waiting = {reason: self._waiting.get(reason, now) for reason in waiting}
        self._told_waiting &= set(waiting)
        events = []
        for reason, since in self._waiting.items():
            if now - since >= WAITING_SECONDS and reason not in self._told_waiting:
                self._told_waiting.add(reason)
                workers = waiting[reason]
                events.append(
                    Event(
                        "trouble",
                        f"december: {numbered(len(workers), 'worker')} of the schema {self.schema} waited for "
                        f"{format_duration(now - since)} so far: {workers[0].detail}",
                    )
                )
        return events
