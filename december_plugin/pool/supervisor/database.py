"""The supervisor's work on the database, in a thread, so that the supervisor itself never waits for a server.

The thread reads whether the pool was asked to stop and whether its workers are idle, and reports workers that died.
While the server is away, it tries again with growing pauses, and delivers afterwards what it could not deliver.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from december_plugin.database.outages import is_outage
from december_plugin.pool.jobs.job import ReleasedJob
from december_plugin.pool.jobs.leases import Leases
from december_plugin.pool.jobs.records import PoolRecords

logger = logging.getLogger(__name__)

PAUSE, LONGEST_PAUSE = 1.0, 15.0  # between two checks (s); the longer one after failures
ANSWER_TIMEOUT = 30.0  # of one question to the server (s)


def failed_jobs(connection: Any, schema: str) -> dict[str, int]:
    """Return how many jobs have ``failed`` and how many are ``poisoned``, of those that workers have begun."""
    records = PoolRecords(connection, schema)
    counts = {"failed": 0, "poisoned": 0}
    given_up = records.given_up()
    for database in {row[0] for row in given_up}:
        # Compared here and not in SQL: the two tables may have different collations.
        failures = records.failures(database)
        for job_schema, table, job_hash, state in given_up:
            if job_schema == database and (table, job_hash) in failures:
                counts[state] += 1
    return counts


@dataclass(frozen=True)
class _Ended:
    """A worker that ended without giving its job back."""

    worker_id: str
    message: str
    counts: bool  # as an attempt of the job that it held


class SupervisorDatabase:
    """The pool's entry in the database, for its supervisor.

    Parameters
    ----------
    schema
        Where the tables of pools are.
    pool_id
        Of this pool.
    connect
        Opens a connection of the thread's own.
    max_attempts
        A job whose worker died this many times is poisoned.
    ends_pool
        Whether the pool ends when the supervisor does; an array of Slurm does not.
    log
        Called, from the thread, with what the user should know.
    """

    def __init__(
        self,
        schema: str,
        pool_id: str,
        *,
        connect: Callable[[], Any],
        max_attempts: int,
        ends_pool: bool = True,
        log: Callable[[str], None] = logger.warning,
    ):
        self.schema, self.pool_id = schema, pool_id
        self.stop_requested = 0
        self.has_answered = False
        self.failures: dict[str, int] | None = None
        self.is_away = False
        self._connect, self._log = connect, log
        self._leases = Leases(schema, max_attempts=max_attempts)
        self._max_attempts, self._ends_pool = max_attempts, ends_pool
        self._connection: Any = None
        self._ended: deque[_Ended] = deque()
        self._watched: tuple[str, ...] = ()
        self._idle: tuple[tuple[str, ...], str, float] | None = None  # which workers, their last job, since when
        self._is_waiting_for_lease = False
        self._wake, self._ending, self._over = threading.Event(), threading.Event(), threading.Event()
        self._given_up = False
        self._thread = threading.Thread(target=self._run, name="supervisor database", daemon=True)

    # --- the supervisor's side: nothing here waits for the server --------------------------------------------------

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def watch(self, worker_ids: tuple[str, ...]) -> None:
        """Set which workers have to be idle for the pool to be idle; with none, it is not."""
        self._watched = worker_ids

    def idle_for(self) -> float:
        """Return for how long (s) all watched workers have been idle without interruption."""
        idle = self._idle
        if idle is None or not self._watched or idle[0] != self._watched or self._is_waiting_for_lease:
            return 0.0
        return time.monotonic() - idle[2]

    def mark_dead(self, worker_id: str, message: str) -> None:
        """Give back what a dead worker held, with the attempt counted, as soon as the server answers."""
        self._ended.append(_Ended(worker_id, message, counts=True))
        self._wake.set()

    def give_back(self, worker_id: str, message: str) -> None:
        """Give back what a worker held that was killed on purpose; this does not count as an attempt."""
        self._ended.append(_Ended(worker_id, message, counts=False))
        self._wake.set()

    def finish(self, *, timeout: float) -> bool:
        """Deliver what is left and note the pool's end; return False if the server did not answer in time (s)."""
        self._ending.set()
        self._wake.set()
        told = self._over.wait(timeout)
        self._given_up = not told
        self._wake.set()
        if told:
            self._thread.join(timeout)  # its connection is closed then
        return told

    # --- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = PAUSE
        while not self._over.is_set() and not self._given_up:
            try:
                self._look()
                pause = PAUSE
            except Exception as error:  # of the server or the network; a bug must not end the thread either
                self._note_failure(error)
                pause = min(2 * pause, LONGEST_PAUSE)
            self._wake.wait(pause)  # new reports are delivered at once
            self._wake.clear()
        self._close()

    def _look(self) -> None:
        ending = self._ending.is_set()
        if self._connection is None:
            self._connection = self._connect()
        while self._ended:
            try:
                self._deliver(self._ended[0])
            except Exception as error:
                if is_outage(error):
                    raise
                worker_id = self._ended[0].worker_id[:8]
                self._log(f"what the worker {worker_id} held is free when its lease has run out: {_first_line(error)}")
            self._ended.popleft()
        records = PoolRecords(self._connection, self.schema)
        self.stop_requested = records.stop_requested(self.pool_id)
        self._look_for_idleness(records, self._watched)
        if self.is_away:
            self.is_away = False
            self._log("the database server answers again")
        self.has_answered = True
        if ending:
            self.failures = failed_jobs(self._connection, self.schema)
            if self._ends_pool:
                records.end_pool(self.pool_id)
            self._over.set()

    def _deliver(self, ended: _Ended) -> None:
        if not ended.counts:
            self._leases.release_all(self._connection, ended.worker_id, message=ended.message)
        for released in self._leases.mark_dead(self._connection, ended.worker_id, ended.message):
            self._log(self._released_in_words(released))

    def _released_in_words(self, released: ReleasedJob) -> str:
        job = f"the job {released.job_hash[:8]} of {released.job_table}"
        if released.poisoned:
            return (
                f"{job} is poisoned: {released.n_deaths} workers died with it. It will not be started again; "
                "`december status` shows it"
            )
        return f"{job} is free again; {released.n_fruitless} of {self._max_attempts} attempts ended this way"

    def _look_for_idleness(self, records: PoolRecords, worker_ids: tuple[str, ...]) -> None:
        last = self._last_job_if_idle(records, worker_ids) if worker_ids else None
        if last is None:
            self._idle = None
        elif self._idle is None or self._idle[:2] != (worker_ids, last):
            self._idle = worker_ids, last, time.monotonic()

    def _last_job_if_idle(self, records: PoolRecords, worker_ids: tuple[str, ...]) -> str | None:
        """Return when these workers last took up a job (empty for never), or None if any of them is not idle."""
        if records.count_idle(worker_ids) < len(worker_ids):  # or it has not reported yet
            return None
        holders = records.other_holders("")
        # A heartbeat reports with a delay that a worker has taken up a job; the job's own row reports it at once.
        if any(worker_id in holders for worker_id in worker_ids):
            return None
        # A job of another pool may soon be free, if its worker is dead.
        longest = time.monotonic() - self._idle[2] if self._idle is not None else 0.0
        self._is_waiting_for_lease = any(age > longest for age in holders.values())
        # Between two checks, they may have done a job, and be looking for the next one.
        return str(records.last_begun(worker_ids) or "")

    def _note_failure(self, error: Exception) -> None:
        self._idle = None
        if not self.is_away:
            self.is_away = True
            what = "does not answer" if is_outage(error) else "refuses"
            self._log(f"the database server {what} ({_first_line(error)}); the workers continue, and wait for it")
        self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):
                connection.close()


def _first_line(error: Exception) -> str:
    return "".join(str(error.args[-1] if error.args else error).splitlines()[:1])


_connecting = threading.Lock()  # several threads of a supervisor may be the first to connect


def own_connection() -> Any:
    """Open a connection for the thread, with the settings that the workers have, too."""
    from december_plugin.database.connection import connect, second_connection
    from december_plugin.importing.datajoint import quiet_datajoint

    with _connecting:
        if not hasattr(quiet_datajoint().conn, "connection"):
            connect(needs_store=False)
    return second_connection(timeout=ANSWER_TIMEOUT)
