"""Leases: who may store a job, as long as its heartbeat is fresh.

A worker that takes up a job reserves it in DataJoint's ``~jobs`` and, in the same transaction, writes itself into
``PoolJob`` as the holder. When its heartbeat (``PoolWorker``) is older than its lease, any live worker gives the job
back. The row in ``PoolJob`` is written by both sides: by the holder in the transaction that stores the result, by the
others in the one that takes the lease away. So a worker that was only suspended or cut off finds out before it stores.

Everything here is plain SQL on a connection, because the thread of the heartbeat and the supervisor, which have no
tables open, do it too. Times are the database's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pymysql
from datajoint.hash import key_hash
from datajoint.jobs import ERROR_MESSAGE_LENGTH

from december_plugin.errors import DecemberError

MAX_WORDS = 4000
CODES_LOCKED = (1020, 1205, 1213)  # another transaction was quicker, lock wait timeout, deadlock
SHORT = 8  # characters of an id or a hash that name a worker, pool or job in messages
AGE = "TIMESTAMPDIFF(MICROSECOND, {}, UTC_TIMESTAMP(6)) / 1e6"  # of a column's time, on the database's clock (s)
_AGE = AGE.format("w.heartbeat")
_EXPIRED = f"(w.worker_id IS NULL OR {_AGE} > w.lease)"
_OF_JOB = "job_table = %s AND job_hash = %s"


class LeaseLostError(DecemberError):
    """The lease of a job went to another worker, so its result must not be stored."""


@dataclass(frozen=True)
class Lease:
    """The right to store a job: its table and hash, the holder, and how often the job had been begun."""

    job_schema: str
    job_table: str
    job_hash: str
    worker_id: str
    n_starts: int

    @property
    def job(self) -> tuple[str, str]:
        """Table and hash."""
        return self.job_table, self.job_hash


@dataclass(frozen=True)
class Released:
    """A lease that was taken away from a worker that died."""

    job_schema: str
    job_table: str
    job_hash: str
    worker_id: str
    n_deaths: int
    n_fruitless: int  # of these, since the last checkpoint
    poisoned: bool


def storable(words: str, length: int = MAX_WORDS) -> str:
    """Return words as a table of any character set takes them, at most so long: what latin-1 lacks is escaped.

    A lab's schema may be older than utf8mb4, and a message that it refuses would end the worker.
    """
    return words.encode("latin-1", "backslashreplace").decode("latin-1")[:length]


@contextmanager
def transaction(connection: Any) -> Iterator[None]:
    """Commit at the end of the block, roll back after an exception of any kind."""
    connection.start_transaction()
    try:
        yield
        connection.commit_transaction()
    except BaseException:
        leave_transaction(connection)
        raise


def leave_transaction(connection: Any) -> None:
    """Roll back what is open; the server itself does so with what a lost connection has begun."""
    if connection._in_transaction:
        with suppress(Exception):
            connection.cancel_transaction()
        connection._in_transaction = False


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
        self._jobs = f"`{schema}`.`pool_job`"
        self._workers = f"`{schema}`.`pool_worker`"

    # --- the holder's side ------------------------------------------------------------------------------------

    def claim(self, table: Any, key: Mapping[str, Any], worker_id: str, *, log_file: str = "") -> Lease | None:
        """Reserve a job and take its lease; None if somebody else has it."""
        connection, job_key = table.connection, table._job_key(dict(key))
        lease_hash = key_hash(job_key)
        reservations = connection.schemas[table.database].jobs
        claimed = False
        try:
            with transaction(connection):
                claimed = reservations.reserve(table.table_name, job_key)
                if not claimed:
                    raise _NotClaimedError
                cursor = connection.query(
                    f"INSERT INTO {self._jobs} (job_table, job_hash, job_schema, worker_id, last_worker, job_state, "
                    "n_starts, log_file, begun) VALUES (%s, %s, %s, %s, %s, 'running', 1, %s, UTC_TIMESTAMP(6)) "
                    "ON DUPLICATE KEY UPDATE job_schema = VALUES(job_schema), worker_id = VALUES(worker_id), "
                    "last_worker = VALUES(last_worker), job_state = 'running', ended = NULL, last_words = '', "
                    "n_starts = LAST_INSERT_ID(n_starts + 1), log_file = VALUES(log_file), begun = VALUES(begun)",
                    args=(table.table_name, lease_hash, table.database, worker_id, worker_id, storable(log_file, 1000)),
                )
                n_starts = int(cursor.lastrowid) or 1
        except _NotClaimedError:
            return None
        return Lease(table.database, table.table_name, lease_hash, worker_id, n_starts)

    def is_held(self, connection: Any, lease: Lease) -> bool:
        """Return whether the lease still stands."""
        row = connection.query(
            f"SELECT worker_id, n_starts FROM {self._jobs} WHERE {_OF_JOB}",
            args=lease.job,
        ).fetchone()
        return row is not None and (row[0], int(row[1])) == (lease.worker_id, lease.n_starts)

    def was_lost(self, connection: Any, lease: Lease) -> bool:
        """Return whether the lease was taken away; one that its holder has ended, as with a result, was not."""
        row = connection.query(
            f"SELECT worker_id, n_starts, job_state FROM {self._jobs} WHERE {_OF_JOB}",
            args=lease.job,
        ).fetchone()
        if row is None or int(row[1]) != lease.n_starts:
            return True
        return row[0] != lease.worker_id and row[2] not in ("done", "failed")

    def note_progress(self, connection: Any, lease: Lease) -> None:
        """Note that the job has a new checkpoint: deaths before it were not for nothing."""
        connection.query(
            f"UPDATE {self._jobs} SET n_fruitless = 0 WHERE {_OF_JOB} AND worker_id = %s AND n_starts = %s",
            args=(*lease.job, lease.worker_id, lease.n_starts),
        )

    def end(self, connection: Any, lease: Lease, *, state: str = "done", words: str = "") -> bool:
        """End a lease and its reservation, within the transaction that is open; return False if the lease was lost.

        In the transaction that stores the result this is the fence: either both happen or neither.
        """
        if not self._end(connection, lease, state, words):
            return False
        connection.query(
            f"DELETE FROM `{lease.job_schema}`.`~jobs` WHERE table_name = %s AND key_hash = %s AND status = 'reserved'",
            args=lease.job,
        )
        return True

    def finish(self, connection: Any, lease: Lease, *, state: str = "done", words: str = "") -> bool:
        """End a job that is done, or give it back (``free``); return False if the lease was lost meanwhile."""
        with transaction(connection):
            return self.end(connection, lease, state=state, words=words)

    def fail(self, table: Any, key: Mapping[str, Any], lease: Lease, *, words: str, stack: str) -> bool:
        """Record a failure with DataJoint; return False if the lease was lost meanwhile."""
        connection, words = table.connection, storable(words)
        with transaction(connection):
            ended = self._end(connection, lease, "failed", words)
            if ended:
                reservations = connection.schemas[table.database].jobs
                reservations.error(table.table_name, table._job_key(dict(key)), error_message=words, error_stack=stack)
        return ended

    def _end(self, connection: Any, lease: Lease, state: str, words: str) -> bool:
        cursor = connection.query(
            f"UPDATE {self._jobs} SET worker_id = '', job_state = %s, last_words = %s, ended = UTC_TIMESTAMP(6) "
            f"WHERE {_OF_JOB} AND worker_id = %s AND n_starts = %s",
            args=(state, storable(words), *lease.job, lease.worker_id, lease.n_starts),
        )
        return cursor.rowcount == 1

    def release_all(self, connection: Any, worker_id: str, *, words: str) -> int:
        """Give back all that a worker holds, as it does itself when it is interrupted; return how many jobs."""
        released = 0
        for row in self._held_by(connection, worker_id):
            released += self.finish(connection, Lease(*row), state="free", words=words)
        return released

    def _held_by(self, connection: Any, worker_id: str) -> list[tuple[Any, ...]]:
        return connection.query(
            f"SELECT job_schema, job_table, job_hash, worker_id, n_starts FROM {self._jobs} WHERE worker_id = %s",
            args=(worker_id,),
        ).fetchall()

    # --- the others' side -------------------------------------------------------------------------------------

    def others(self, connection: Any, worker_id: str) -> dict[str, float]:
        """Return the other workers that hold leases, with the age of their heartbeats (s)."""
        rows = connection.query(
            f"SELECT j.worker_id, MIN({_AGE}) FROM {self._jobs} j LEFT JOIN {self._workers} w USING (worker_id) "
            "WHERE j.worker_id NOT IN ('', %s) GROUP BY j.worker_id",
            args=(worker_id,),
        ).fetchall()
        return {holder: float("inf") if age is None else float(age) for holder, age in rows}

    def release_expired(self, connection: Any) -> list[Released]:
        """Take away the leases of workers whose heartbeat is too old, with the attempt counted.

        A server that has been up for less than a lease cannot tell: nobody could have written a heartbeat before.
        """
        uptime = float(connection.query("SHOW GLOBAL STATUS LIKE 'Uptime'").fetchone()[1])
        rows = connection.query(
            f"SELECT j.job_schema, j.job_table, j.job_hash, j.worker_id, j.n_starts, {_AGE} FROM {self._jobs} j "
            f"LEFT JOIN {self._workers} w USING (worker_id) "
            f"WHERE j.worker_id <> '' AND {_EXPIRED} AND COALESCE(w.lease, 0) < %s",
            args=(uptime,),
        ).fetchall()
        return self._take_all(
            connection,
            (
                (Lease(*row), "its worker is unknown" if age is None else f"no heartbeat for {age:.0f} s")
                for *row, age in rows
            ),
        )

    def mark_dead(self, connection: Any, worker_id: str, words: str) -> list[Released]:
        """Take away what a worker held whose process is known to have ended, with the attempts counted."""
        words = storable(words)
        connection.query(
            f"UPDATE {self._workers} SET worker_state = 'dead', worker_detail = %s, "
            "worker_ended = UTC_TIMESTAMP(6) WHERE worker_id = %s AND worker_ended IS NULL",
            args=(words[:1000], worker_id),
        )
        leases = [(Lease(*row), words) for row in self._held_by(connection, worker_id)]
        return self._take_all(connection, leases, known_dead=True)

    def _take_all(
        self, connection: Any, leases: Iterable[tuple[Lease, str]], *, known_dead: bool = False
    ) -> list[Released]:
        found = []
        for number, (lease, words) in enumerate(leases):
            if number == 0:
                # A holder that stores its result at this moment has the row; this thread must not wait for it.
                connection.query("SET SESSION innodb_lock_wait_timeout = 2")
            try:
                found.append(self._take_away(connection, lease, words, known_dead=known_dead))
            except pymysql.err.OperationalError as error:
                if error.args[0] not in CODES_LOCKED:
                    raise
        return [released for released in found if released is not None]

    def _take_away(self, connection: Any, lease: Lease, words: str, *, known_dead: bool = False) -> Released | None:
        with transaction(connection):
            row = connection.query(
                f"SELECT j.n_deaths, j.n_fruitless FROM {self._jobs} j LEFT JOIN {self._workers} w USING (worker_id) "
                "WHERE j.job_table = %s AND j.job_hash = %s "
                "AND j.worker_id = %s AND j.n_starts = %s" + ("" if known_dead else f" AND {_EXPIRED}") + " FOR UPDATE",
                args=(*lease.job, lease.worker_id, lease.n_starts),
            ).fetchone()
            if row is None:  # it lives, or another was quicker
                return None
            n_deaths, n_fruitless = int(row[0]) + 1, int(row[1]) + 1
            poisoned = n_fruitless >= self.max_attempts
            connection.query(
                f"UPDATE {self._jobs} SET worker_id = '', job_state = %s, n_deaths = %s, n_fruitless = %s, "
                f"last_words = %s, ended = UTC_TIMESTAMP(6) WHERE {_OF_JOB}",
                args=("poisoned" if poisoned else "free", n_deaths, n_fruitless, words[:MAX_WORDS], *lease.job),
            )
            of_reservation = "WHERE table_name = %s AND key_hash = %s AND status = 'reserved'"
            if poisoned:
                message = f"poisoned: {n_deaths} workers died while they computed it; the last one: {words}"
                connection.query(
                    f"UPDATE `{lease.job_schema}`.`~jobs` SET status = 'error', error_message = %s {of_reservation}",
                    args=(message[:ERROR_MESSAGE_LENGTH], *lease.job),
                )
            else:
                connection.query(f"DELETE FROM `{lease.job_schema}`.`~jobs` {of_reservation}", args=lease.job)
            connection.query(
                f"UPDATE {self._workers} SET worker_state = 'dead', worker_detail = %s WHERE worker_id = %s "
                "AND worker_state NOT IN ('ended', 'dead')",
                args=(words[:1000], lease.worker_id),
            )
        return Released(
            lease.job_schema, lease.job_table, lease.job_hash, lease.worker_id, n_deaths, n_fruitless, poisoned
        )


class _NotClaimedError(Exception):
    """Somebody else has reserved the job."""
