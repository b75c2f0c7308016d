"""All SQL on the tables of pools (``pool``, ``pool_worker``, ``pool_job``) and on DataJoint's queue (``~jobs``).

:class:`PoolRecords` knows the columns and the statements; its callers (leases, the queue, the status,
the supervisor) decide when they are executed, in which order and within which transaction. Everything is plain SQL on a
connection, because the thread of the heartbeat and the supervisor have no tables open. Times are the database's.
Nothing here begins or ends a transaction.
"""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from datajoint.errors import DuplicateError
from datajoint.jobs import ERROR_MESSAGE_LENGTH

from december_plugin.importing.datajoint_internals import job_key, user_of_queue
from december_plugin.pool.jobs.job import STATES, Lease
from december_plugin.pool.liveness import ENDED, PoolStatus, WorkerStatus

POOL, WORKER, JOB, QUEUE = "pool", "pool_worker", "pool_job", "~jobs"
POOL_TABLES = (POOL, WORKER, JOB)
MAX_MESSAGE, MAX_DETAIL, MAX_OPTIONS, MAX_LOG_FILE = 4000, 1000, 4000, 1000  # characters that columns hold
LOCK_PATIENCE_SECONDS = 2  # of a thread that takes leases away

_AGE = "TIMESTAMPDIFF(MICROSECOND, {}, UTC_TIMESTAMP(6)) / 1e6"  # of a column's time, on the database's clock (s)
_QUEUE_AGE = "TIMESTAMPDIFF(SECOND, `timestamp`, CURRENT_TIMESTAMP)"
_ENDED = "({})".format(", ".join(f"'{state}'" for state in ENDED))

# Columns, or what is computed from them, by the fields of the classes that they become.
_WORKER_COLUMNS = {
    "worker_id": "worker_id",
    "pool_id": "pool_id",
    "host": "worker_host",
    "pid": "worker_pid",
    "gpu": "worker_gpu",
    "slurm_job": "worker_slurm_job",
    "state": "worker_state",
    "detail": "worker_detail",
    "lease": "lease",
    "heartbeat_age": _AGE.format("heartbeat"),
    "job_table": "job_table",
    "job_hash": "job_hash",
    "epoch": "job_epoch",
    "n_epochs": "job_n_epochs",
    "score": "job_score",
    "seconds_left": "job_seconds_left",
    "n_done": "n_done",
    "n_failed": "n_failed",
    "busy_seconds": "busy_seconds",
    "version": "worker_version",
    "gpu_name": "gpu_name",
    "gpu_memory": "gpu_memory",
    "gpu_workers": "gpu_workers",
}
_POOL_COLUMNS = {
    "pool_id": "pool_id",
    "kind": "pool_kind",
    "host": "pool_host",
    "pid": "pool_pid",
    "user": "pool_user",
    "slurm_job": "slurm_job",
    "n_workers": "n_workers",
    "options": "pool_options",
    "stop_requested": "stop_requested",
    "age": _AGE.format("pool_started"),
    "ended_age": _AGE.format("pool_ended"),
}
_QUEUE_COLUMNS = {
    "status": "status",
    "reason": "error_message",
    "host": "host",
    "pid": "pid",
    "user": "user",
    "age": _QUEUE_AGE,
    "key": "`key`",
}
_ATTEMPT_COLUMNS = {
    "holder": "worker_id",
    "job_state": "job_state",
    "n_starts": "n_starts",
    "n_deaths": "n_deaths",
    "elapsed": _AGE.format("begun"),
}
_HISTORY_COLUMNS = {
    "last_worker": "last_worker",
    "last_words": "last_words",
    "log_file": "log_file",
    "begun": "begun",
    "ended": "ended",
}
_BY_PLACE = "worker_host, worker_gpu, worker_started"
_HEARTBEAT_AGE = _AGE.format("w.heartbeat")
_EXPIRED = f"(w.worker_id IS NULL OR {_HEARTBEAT_AGE} > w.lease)"
_OF_JOB = "job_table = %s AND job_hash = %s"
_OF_LEASE = f"{_OF_JOB} AND worker_id = %s AND n_starts = %s"
# A holder that has other jobs to do first has not begun this one: its token is that of the coming start.
_HAS_BEGUN = "job_state <> 'free'"
_TOKEN = f"n_starts + IF({_HAS_BEGUN}, 0, 1)"
_IS_OVER = "job_state IN ('done', 'failed', 'poisoned')"
_QUEUED = "table_name = %s AND key_hash = %s"
_WITHIN_A_DAY = "UTC_TIMESTAMP(6) - INTERVAL 1 DAY"

# Rows that are no longer needed after a while, in the order of their deletion: a worker's row when no job refers to
# it, a pool's when no worker does.
_OLD = {
    JOB: "job_state = 'done' AND worker_id = '' AND ended < {cutoff}",
    WORKER: (
        "heartbeat < {cutoff} AND "
        "NOT EXISTS (SELECT 1 FROM `{schema}`.`pool_job` j WHERE j.worker_id = pool_worker.worker_id)"
    ),
    POOL: (
        # A Slurm array may wait in its queue for as long as it likes.
        "(pool_ended < {cutoff} OR (pool_ended IS NULL AND pool_kind = 'local' AND pool_started < {cutoff})) "
        "AND NOT EXISTS (SELECT 1 FROM `{schema}`.`pool_worker` w WHERE w.pool_id = pool.pool_id "
        "AND w.heartbeat >= {cutoff})"
    ),
}
_CUTOFF = "UTC_TIMESTAMP(6) - INTERVAL %s SECOND"


def storable(message: str, length: int = MAX_MESSAGE) -> str:
    """Return a message that a table of any character set takes, cut to a length; what latin-1 lacks is escaped.

    A lab's schema may be older than utf8mb4, and a message that it refuses would end the worker.
    """
    return message.encode("latin-1", "backslashreplace").decode("latin-1")[:length]


def user_name() -> str:
    """Return the user who runs this process: the number if there is no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


class PoolRecords:
    """The rows of pools, workers and jobs of one schema; cheap to construct.

    Parameters
    ----------
    connection
        A DataJoint connection.
    schema
        Name of the schema with the tables of pools. The queue is in the schema of each job's table, mostly the same.
    """

    def __init__(self, connection: Any, schema: str):
        self.connection, self.schema = connection, schema
        self._pools, self._workers, self._jobs = (f"`{schema}`.`{name}`" for name in POOL_TABLES)

    # --- the server, and which tables there are -------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the time on the database's clock (UTC)."""
        (now,) = self.connection.query("SELECT UTC_TIMESTAMP(6)").fetchone()
        return now

    def uptime(self) -> float:
        """Return for how long the server has been up (s)."""
        return float(self.connection.query("SHOW GLOBAL STATUS LIKE 'Uptime'").fetchone()[1])

    def take_lock(self, name: str) -> bool:
        """Take a named lock of the server for as long as the connection lasts; return False if another has it."""
        return self.connection.query("SELECT GET_LOCK(%s, 0)", args=(name,)).fetchone()[0] == 1

    def holds_lock(self, name: str) -> bool:
        """Return whether this connection has a named lock."""
        return self.connection.query("SELECT IS_USED_LOCK(%s) = CONNECTION_ID()", args=(name,)).fetchone()[0] == 1

    def end_when_silent(self, seconds: int) -> None:
        """Let the server end this connection, and give back its locks, when nothing was asked for this time (s)."""
        self.connection.query(f"SET SESSION wait_timeout = {int(seconds)}")

    def existing(self, databases: Iterable[str]) -> tuple[bool, set[str]]:
        """Return whether all tables of pools exist, and which of these schemas have a queue."""
        wanted = [(self.schema, name) for name in POOL_TABLES] + [(database, QUEUE) for database in databases]
        condition = " OR ".join(["(table_schema = %s AND table_name = %s)"] * len(wanted))
        rows = self.connection.query(
            f"SELECT table_schema, table_name FROM information_schema.tables WHERE {condition}",
            args=[value for pair in wanted for value in pair],
        ).fetchall()
        found = {(str(database), str(name)) for database, name in rows}
        has_pool_tables = all((self.schema, name) in found for name in POOL_TABLES)
        return has_pool_tables, {database for database, name in found if name == QUEUE}

    def has_workers(self) -> bool:
        """Return whether the table of workers exists, as far as this account may see it."""
        query = "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = %s AND table_name = %s"
        return bool(self.connection.query(query, args=(self.schema, WORKER)).fetchone()[0])

    @staticmethod
    def schemas_with_workers(connection: Any) -> list[str]:
        """Return the schemas of a server that have a table of workers."""
        rows = connection.query(
            "SELECT table_schema FROM information_schema.tables WHERE table_name = %s ORDER BY table_schema",
            args=(WORKER,),
        ).fetchall()
        return [str(schema) for (schema,) in rows]

    # --- pools ----------------------------------------------------------------------------------------------------

    def add_pool(self, pool_id: str, *, kind: str, n_workers: int, options: str = "", slurm_job: str = "") -> None:
        """Write the row of a pool that this process starts, or submits to Slurm.

        Parameters
        ----------
        pool_id
            32 hexadecimal digits.
        kind
            ``local`` or ``slurm``.
        n_workers
            Workers that it keeps running.
        options
            The command's options, in words.
        slurm_job
            The array job.
        """
        self.connection.query(
            f"INSERT INTO {self._pools} (pool_id, pool_kind, pool_host, pool_pid, pool_user, slurm_job, n_workers, "
            "pool_options, pool_started) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, UTC_TIMESTAMP(6)) "
            # Repeated after a lost connection, the first attempt may already have written it.
            "ON DUPLICATE KEY UPDATE pool_id = VALUES(pool_id)",
            args=(
                pool_id,
                kind,
                platform.node(),
                os.getpid() if kind == "local" else 0,
                user_name()[:255],
                slurm_job,
                n_workers,
                options[:MAX_OPTIONS],
            ),
        )

    def end_pool(self, pool_id: str) -> None:
        """Note that a pool has ended; what was noted before stays."""
        self.connection.query(
            f"UPDATE {self._pools} SET pool_ended = UTC_TIMESTAMP(6) WHERE pool_id = %s AND pool_ended IS NULL",
            args=(pool_id,),
        )

    def request_stop(self, pool_id: str, *, how: int) -> None:
        """Ask a pool to stop; ``how`` is 1 for saving the states first, 2 for at once. It is never taken back."""
        self.connection.query(
            f"UPDATE {self._pools} SET stop_requested = GREATEST(stop_requested, %s) WHERE pool_id = %s",
            args=(how, pool_id),
        )

    def stop_requested(self, pool_id: str) -> int:
        """Return how a pool was asked to stop; 0 if it was not."""
        row = self.connection.query(
            f"SELECT stop_requested FROM {self._pools} WHERE pool_id = %s", args=(pool_id,)
        ).fetchone()
        return int(row[0]) if row is not None else 0

    def pools(self, *, running: bool = True) -> list[PoolStatus]:
        """Return the pools with their workers, oldest first; with ``running`` only those that have not ended."""
        found = self._read_pools("pool_ended IS NULL" if running else "TRUE")
        if not found:
            return []
        ids = tuple(pool.pool_id for pool in found)
        workers: dict[str, list[WorkerStatus]] = {pool_id: [] for pool_id in ids}
        for worker in self._read_workers(f"pool_id IN ({_places(ids)})", *ids):
            workers[worker.pool_id].append(worker)
        return [replace(pool, workers=tuple(workers[pool.pool_id])) for pool in found]

    def pools_of_the_day(self) -> list[PoolStatus]:
        """Return the pools that have not ended, or have within a day, without their workers."""
        return self._read_pools(f"pool_ended IS NULL OR pool_ended > {_WITHIN_A_DAY}")

    def _read_pools(self, condition: str) -> list[PoolStatus]:
        rows = self.connection.query(
            f"SELECT {_selected(_POOL_COLUMNS)} FROM {self._pools} WHERE {condition} ORDER BY pool_started, pool_id"
        ).fetchall()
        pools = (PoolStatus(*row) for row in rows)
        return [
            replace(
                pool,
                age=float(pool.age),
                ended_age=None if pool.ended_age is None else float(pool.ended_age),
                stop_requested=int(pool.stop_requested),
            )
            for pool in pools
        ]

    # --- workers --------------------------------------------------------------------------------------------------

    def write_heartbeat(self, worker: WorkerStatus) -> None:
        """Write what a worker does, with the present time as its last sign of life."""
        values = {
            column: getattr(worker, name)
            for name, column in _WORKER_COLUMNS.items()
            if name not in ("worker_id", "heartbeat_age")
        }
        values["worker_detail"] = storable(worker.detail, MAX_DETAIL)
        names = ", ".join(values)
        updates = ", ".join(f"{name} = VALUES({name})" for name in values)
        self.connection.query(
            f"INSERT INTO {self._workers} (worker_id, heartbeat, worker_started, {names}) VALUES "
            f"(%s, UTC_TIMESTAMP(6), UTC_TIMESTAMP(6), {_places(values)}) "
            f"ON DUPLICATE KEY UPDATE heartbeat = VALUES(heartbeat), {updates}",
            args=(worker.worker_id, *values.values()),
        )

    def end_worker(self, worker_id: str, *, detail: str, n_done: int, n_failed: int) -> None:
        """Note that a worker has ended on its own or on request."""
        self.connection.query(
            f"UPDATE {self._workers} SET worker_state = 'ended', worker_detail = %s, job_table = '', "
            "job_hash = '', n_done = %s, n_failed = %s, worker_ended = UTC_TIMESTAMP(6) WHERE worker_id = %s",
            args=(detail[:MAX_DETAIL], n_done, n_failed, worker_id),
        )

    def mark_worker_dead(self, worker_id: str, message: str) -> None:
        """Note that a worker's process is known to have ended."""
        self.connection.query(
            f"UPDATE {self._workers} SET worker_state = 'dead', worker_detail = %s, "
            "worker_ended = UTC_TIMESTAMP(6) WHERE worker_id = %s AND worker_ended IS NULL",
            args=(message[:MAX_DETAIL], worker_id),
        )

    def presume_worker_dead(self, worker_id: str, message: str) -> None:
        """Note that a worker has lost a lease: as far as the others can tell, it is dead."""
        self.connection.query(
            f"UPDATE {self._workers} SET worker_state = 'dead', worker_detail = %s WHERE worker_id = %s "
            f"AND worker_state NOT IN {_ENDED}",
            args=(message[:MAX_DETAIL], worker_id),
        )

    def workers_of_the_day(self) -> list[WorkerStatus]:
        """Return the workers that have shown a sign of life within a day, by host and GPU."""
        return self._read_workers(f"heartbeat > {_WITHIN_A_DAY}")

    def workers_at_work(self) -> list[WorkerStatus]:
        """Return the workers that have not ended, by host and GPU; some may be dead."""
        return self._read_workers(f"worker_state NOT IN {_ENDED}")

    def expected_workers(self, *, host: str = "", worker_id: str = "") -> list[WorkerStatus]:
        """Return the workers of a host, or the one with this id, of which heartbeats are expected."""
        column, value = ("worker_id", worker_id) if worker_id else ("worker_host", host)
        return self._read_workers(
            f"worker_state NOT IN {_ENDED} AND {column} = %s", value, order="worker_gpu, worker_id"
        )

    def worker(self, worker_id: str) -> WorkerStatus | None:
        """Return a worker; None if it is unknown, or no longer known."""
        found = self._read_workers("worker_id = %s", worker_id)
        return found[0] if found else None

    def _read_workers(self, condition: str, *args: Any, order: str = _BY_PLACE) -> list[WorkerStatus]:
        rows = self.connection.query(
            f"SELECT {_selected(_WORKER_COLUMNS)} FROM {self._workers} WHERE {condition} ORDER BY {order}", args=args
        ).fetchall()
        return [
            replace(worker, heartbeat_age=float(worker.heartbeat_age)) for worker in (WorkerStatus(*r) for r in rows)
        ]

    def count_idle(self, worker_ids: Sequence[str]) -> int:
        """Return how many of these workers report that they have nothing to do."""
        (number,) = self.connection.query(
            f"SELECT COUNT(*) FROM {self._workers} WHERE worker_state = 'idle' "
            f"AND worker_id IN ({_places(worker_ids)})",
            args=tuple(worker_ids),
        ).fetchone()
        return int(number)

    def could_begin(self, pool_id: str) -> bool:
        """Return whether a pool has used the store already: a local one has, and so has one with a worker's row."""
        query = (
            f"SELECT EXISTS (SELECT 1 FROM {self._pools} WHERE pool_id = %s AND pool_kind = 'local') OR "
            f"EXISTS (SELECT 1 FROM {self._workers} WHERE pool_id = %s)"
        )
        return bool(self.connection.query(query, args=(pool_id, pool_id)).fetchone()[0])

    # --- leases: who holds a job, and how often it was begun --------------------------------------------------------

    def claim(
        self, job_schema: str, job_table: str, worker_id: str, *, begun: tuple[str, str], hashes: Sequence[str] = ()
    ) -> dict[str, int]:
        """Record a worker as the holder of a job that it begins now, and of others that it begins afterwards.

        Parameters
        ----------
        job_schema, job_table
            Of all these jobs.
        worker_id
            The holder.
        begun
            Hash and log file of the job that it begins.
        hashes
            Of the others, in the order in which several jobs are always locked.

        Returns
        -------
        dict
            Hash to how often the job was begun, this time included where it is begun.
        """
        job_hash, log_file = begun
        cursor = self.connection.query(
            f"INSERT INTO {self._jobs} (job_table, job_hash, job_schema, worker_id, last_worker, job_state, "
            "n_starts, log_file, begun) VALUES (%s, %s, %s, %s, %s, 'running', 1, %s, UTC_TIMESTAMP(6)) "
            "ON DUPLICATE KEY UPDATE job_schema = VALUES(job_schema), worker_id = VALUES(worker_id), "
            "last_worker = VALUES(last_worker), job_state = 'running', ended = NULL, last_words = '', "
            "n_starts = LAST_INSERT_ID(n_starts + 1), log_file = VALUES(log_file), begun = VALUES(begun)",
            args=(job_table, job_hash, job_schema, worker_id, worker_id, storable(log_file, MAX_LOG_FILE)),
        )
        n_starts = {job_hash: int(cursor.lastrowid) or 1}
        if hashes:
            self.connection.query(
                f"INSERT INTO {self._jobs} (job_table, job_hash, job_schema, worker_id, job_state, begun) VALUES "
                + ", ".join(["(%s, %s, %s, %s, 'free', UTC_TIMESTAMP(6))"] * len(hashes))
                + " ON DUPLICATE KEY UPDATE job_schema = VALUES(job_schema), worker_id = VALUES(worker_id), "
                "job_state = 'free'",
                args=[value for each in hashes for value in (job_table, each, job_schema, worker_id)],
            )
            rows = self.connection.query(
                f"SELECT job_hash, n_starts FROM {self._jobs} WHERE job_table = %s AND job_hash IN ({_places(hashes)})",
                args=(job_table, *hashes),
            ).fetchall()
            n_starts |= {each: int(number) for each, number in rows}
        return n_starts

    def begin(self, lease: Lease, *, log_file: str) -> bool:
        """Note that the holder of a job begins it; return False if it does not hold the job or has already begun it."""
        cursor = self.connection.query(
            f"UPDATE {self._jobs} SET job_state = 'running', n_starts = n_starts + 1, last_worker = worker_id, "
            f"ended = NULL, last_words = '', log_file = %s, begun = UTC_TIMESTAMP(6) "
            f"WHERE {_OF_LEASE} AND job_state = 'free'",
            args=(storable(log_file, MAX_LOG_FILE), *lease.job, lease.worker_id, lease.n_starts - 1),
        )
        return cursor.rowcount == 1

    def give_back_not_begun(self, lease: Lease) -> bool:
        """Remove the holder of a job that it has not begun, as if it had never held it; return False if it has."""
        cursor = self.connection.query(
            f"UPDATE {self._jobs} SET worker_id = '' WHERE {_OF_LEASE} AND job_state = 'free'",
            args=(*lease.job, lease.worker_id, lease.n_starts - 1),
        )
        return cursor.rowcount == 1

    def holder(self, lease: Lease) -> tuple[str, int, str] | None:
        """Return who holds the job of a lease, how often it was begun and its state; None without a record."""
        row = self.connection.query(
            f"SELECT worker_id, n_starts, job_state FROM {self._jobs} WHERE {_OF_JOB}",
            args=lease.job,
        ).fetchone()
        return None if row is None else (row[0], int(row[1]), row[2])

    def forget_fruitless(self, lease: Lease) -> None:
        """Note that the job has a new checkpoint, so that the deaths of earlier workers were not fruitless."""
        self.connection.query(
            f"UPDATE {self._jobs} SET n_fruitless = 0 WHERE {_OF_LEASE}",
            args=(*lease.job, lease.worker_id, lease.n_starts),
        )

    def end_lease(self, lease: Lease, *, state: str, message: str) -> bool:
        """Remove the holder of a job and set the job's state; return False if the lease was lost."""
        cursor = self.connection.query(
            f"UPDATE {self._jobs} SET worker_id = '', job_state = %s, last_words = %s, ended = UTC_TIMESTAMP(6) "
            f"WHERE {_OF_LEASE}",
            args=(state, storable(message), *lease.job, lease.worker_id, lease.n_starts),
        )
        return cursor.rowcount == 1

    def leases_of(self, worker_id: str) -> list[tuple[Lease, bool]]:
        """Return all leases that a worker holds, each with whether it has begun the job."""
        rows = self.connection.query(
            f"SELECT job_schema, job_table, job_hash, worker_id, {_TOKEN}, {_HAS_BEGUN} FROM {self._jobs} "
            "WHERE worker_id = %s",
            args=(worker_id,),
        ).fetchall()
        return [(Lease(*row), bool(has_begun)) for *row, has_begun in rows]

    def other_holders(self, worker_id: str) -> dict[str, float]:
        """Return the other workers that hold leases, with the age of their heartbeats (s)."""
        rows = self.connection.query(
            f"SELECT j.worker_id, MIN({_HEARTBEAT_AGE}) FROM {self._jobs} j LEFT JOIN {self._workers} w "
            "USING (worker_id) WHERE j.worker_id NOT IN ('', %s) GROUP BY j.worker_id",
            args=(worker_id,),
        ).fetchall()
        return {holder: float("inf") if age is None else float(age) for holder, age in rows}

    def expired_leases(self, uptime: float) -> list[tuple[Lease, float | None]]:
        """Return the leases that have run out and are shorter than ``uptime`` (s), with the ages of the heartbeats."""
        rows = self.connection.query(
            f"SELECT j.job_schema, j.job_table, j.job_hash, j.worker_id, {_TOKEN}, {_HEARTBEAT_AGE} "
            f"FROM {self._jobs} j LEFT JOIN {self._workers} w USING (worker_id) "
            f"WHERE j.worker_id <> '' AND {_EXPIRED} AND COALESCE(w.lease, 0) < %s",
            args=(uptime,),
        ).fetchall()
        return [(Lease(*row), age) for *row, age in rows]

    def wait_briefly_for_locks(self) -> None:
        """Let this connection wait for locks for only two seconds: a holder that is storing its result has the row."""
        self.connection.query(f"SET SESSION innodb_lock_wait_timeout = {LOCK_PATIENCE_SECONDS}")

    def lock_lease(self, lease: Lease, *, only_expired: bool) -> tuple[int, int, bool] | None:
        """Lock the job's row until the transaction ends.

        Returns
        -------
        tuple or None
            The job's deaths, the fruitless ones among them, and whether the holder has begun it. None if the lease is
            no longer valid, or with ``only_expired`` if its worker is alive.
        """
        row = self.connection.query(
            f"SELECT j.n_deaths, j.n_fruitless, {_HAS_BEGUN} "
            f"FROM {self._jobs} j LEFT JOIN {self._workers} w USING (worker_id) "
            f"WHERE j.job_table = %s AND j.job_hash = %s AND j.worker_id = %s AND {_TOKEN} = %s"
            + (f" AND {_EXPIRED}" if only_expired else "")
            + " FOR UPDATE",
            args=(*lease.job, lease.worker_id, lease.n_starts),
        ).fetchone()
        return None if row is None else (int(row[0]), int(row[1]), bool(row[2]))

    def take_lease_away(self, lease: Lease, *, state: str, n_deaths: int, n_fruitless: int, message: str) -> None:
        """Remove the holder of a job whose row is locked."""
        self.connection.query(
            f"UPDATE {self._jobs} SET worker_id = '', job_state = %s, n_deaths = %s, n_fruitless = %s, "
            f"last_words = %s, ended = UTC_TIMESTAMP(6) WHERE {_OF_JOB}",
            args=(state, n_deaths, n_fruitless, message[:MAX_MESSAGE], *lease.job),
        )

    def take_leases_away_by_hand(self, job_table: str, hashes: Sequence[str]) -> None:
        """Remove the holders of jobs whose rows are locked, without counting the attempts as deaths."""
        self.connection.query(
            f"UPDATE {self._jobs} SET worker_id = '', job_state = 'free', ended = UTC_TIMESTAMP(6), last_words = "
            "'taken away by hand from a worker without a heartbeat' WHERE job_table = %s "
            f"AND job_hash IN ({_places(hashes)}) AND worker_id <> ''",
            args=(job_table, *hashes),
        )

    def last_begun(self, worker_ids: Sequence[str]) -> datetime | None:
        """Return when one of these workers last took up a job; None for never."""
        (last,) = self.connection.query(
            f"SELECT MAX(begun) FROM {self._jobs} WHERE last_worker IN ({_places(worker_ids)})", args=tuple(worker_ids)
        ).fetchone()
        return last

    # --- outcomes of jobs -----------------------------------------------------------------------------------------

    def attempts(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Return the attempts at jobs that are held, failed or poisoned, by table and hash, as fields of a job."""
        rows = self.connection.query(
            f"SELECT job_table, job_hash, {_selected(_ATTEMPT_COLUMNS)} "
            f"FROM {self._jobs} WHERE worker_id <> '' OR job_state IN ('failed', 'poisoned')"
        ).fetchall()
        return {(table, job_hash): _attempt(rest) for table, job_hash, *rest in rows}

    def history(self, job_table: str, job_hash: str) -> dict[str, Any] | None:
        """Return everything about the attempts at one job, as fields of a job; None if no worker has begun it."""
        row = self.connection.query(
            f"SELECT {_selected(_ATTEMPT_COLUMNS)}, {_selected(_HISTORY_COLUMNS)} FROM {self._jobs} "
            f"WHERE {_OF_JOB} AND (n_starts > 0 OR worker_id <> '')",
            args=(job_table, job_hash),
        ).fetchone()
        if row is None:
            return None
        n = len(_ATTEMPT_COLUMNS)
        return {**_attempt(row[:n]), **dict(zip(_HISTORY_COLUMNS, row[n:], strict=True)), "has_record": True}

    def given_up(self) -> list[tuple[str, str, str, str]]:
        """Return schema, table, hash and state of the jobs that workers know to have failed or to be poisoned."""
        rows = self.connection.query(
            f"SELECT job_schema, job_table, job_hash, job_state FROM {self._jobs} "
            "WHERE job_state IN ('failed', 'poisoned')"
        ).fetchall()
        return [tuple(row) for row in rows]

    def given_up_since(self, time: datetime) -> list[tuple[str, str, str, int, str]]:
        """Return table, hash, state, number of starts and last words of the jobs that were given up since then."""
        rows = self.connection.query(
            f"SELECT job_table, job_hash, job_state, n_starts, last_words FROM {self._jobs} "
            "WHERE job_state IN ('failed', 'poisoned') AND ended >= %s ORDER BY ended, job_table, job_hash",
            args=(time,),
        ).fetchall()
        return [(table, job_hash, state, int(n_starts), words) for table, job_hash, state, n_starts, words in rows]

    def last_end(self) -> datetime | None:
        """Return when the last job was done or given up; None for never."""
        (last,) = self.connection.query(f"SELECT MAX(ended) FROM {self._jobs} WHERE {_IS_OVER}").fetchone()
        return last

    def count_ended(self, since: datetime) -> dict[str, int]:
        """Return how many jobs were done or given up since then, by state."""
        rows = self.connection.query(
            f"SELECT job_state, COUNT(*) FROM {self._jobs} WHERE {_IS_OVER} AND ended >= %s GROUP BY job_state",
            args=(since,),
        ).fetchall()
        return {str(state): int(number) for state, number in rows}

    def durations(self) -> list[tuple[str, int, int, float]]:
        """Return tables, their jobs of the last hour and day, and the seconds per job (of the day, or of all jobs)."""
        duration, is_recent = "TIMESTAMPDIFF(MICROSECOND, begun, ended) / 1e6", f"ended > {_WITHIN_A_DAY}"
        rows = self.connection.query(
            f"SELECT job_table, SUM(ended > UTC_TIMESTAMP(6) - INTERVAL 1 HOUR), SUM({is_recent}), "
            f"COALESCE(AVG(IF({is_recent}, {duration}, NULL)), AVG({duration})) "
            f"FROM {self._jobs} WHERE job_state = 'done' AND ended IS NOT NULL GROUP BY job_table"
        ).fetchall()
        return [(table, int(hour), int(day), float(mean)) for table, hour, day, mean in rows]

    def lock_holders(
        self, job_table: str, hashes: Sequence[str]
    ) -> dict[str, tuple[str, str, float | None, float, str]]:
        """Lock the rows of jobs until the transaction ends.

        Returns
        -------
        dict
            Hash to the job's state, its holder, the age of the holder's heartbeat (None if it is not known), its lease
            and its host.
        """
        rows = self.connection.query(
            f"SELECT j.job_hash, j.job_state, j.worker_id, {_HEARTBEAT_AGE}, COALESCE(w.lease, 0), "
            f"COALESCE(w.worker_host, '') FROM {self._jobs} j LEFT JOIN {self._workers} w USING (worker_id) "
            f"WHERE j.job_table = %s AND j.job_hash IN ({_places(hashes)}) FOR UPDATE",
            args=(job_table, *hashes),
        ).fetchall()
        return {
            job_hash: (state, holder, None if age is None else float(age), float(lease), host)
            for job_hash, state, holder, age, lease, host in rows
        }

    def renew_attempts(self, job_table: str, hashes: Sequence[str]) -> None:
        """Allow jobs whose rows are locked all their attempts again."""
        self.connection.query(
            f"UPDATE {self._jobs} SET n_deaths = 0, n_fruitless = 0, job_state = 'free' WHERE job_table = %s "
            f"AND job_hash IN ({_places(hashes)})",
            args=(job_table, *hashes),
        )

    def renew_attempts_of_given_up(self, job_table: str, hashes: Sequence[str]) -> None:
        """Allow those of these jobs that have no holder and are not done all their attempts again."""
        self.connection.query(
            f"UPDATE {self._jobs} SET n_deaths = 0, n_fruitless = 0, job_state = 'free' "
            f"WHERE job_table = %s AND worker_id = '' AND job_state <> 'done' AND job_hash IN ({_places(hashes)})",
            args=(job_table, *hashes),
        )

    def delete_jobs(self, job_table: str, hashes: Sequence[str]) -> None:
        """Forget that workers have begun these jobs."""
        self.connection.query(
            f"DELETE FROM {self._jobs} WHERE job_table = %s AND job_hash IN ({_places(hashes)})",
            args=(job_table, *hashes),
        )

    # --- the queue: DataJoint's reservations and failures ---------------------------------------------------------

    @staticmethod
    def make_queue(table: Any) -> None:
        """Create the queue of a table's schema if it does not exist, which is not possible within a transaction."""
        _reservations(table)

    @staticmethod
    def queued_hashes(table: Any, *, status: str | None = None) -> list[str]:
        """Return the hashes of a table's jobs in the queue, which is made if it does not exist."""
        rows = _reservations(table) & {"table_name": table.table_name}
        return [str(found) for found in (rows if status is None else rows & {"status": status}).fetch("key_hash")]

    @staticmethod
    def queued_states(table: Any) -> dict[str, str]:
        """Return the states of a table's jobs in the queue, by hash; the queue is made if it does not exist."""
        rows = _reservations(table) & {"table_name": table.table_name}
        return {str(found): str(status) for found, status in zip(*rows.fetch("key_hash", "status"), strict=True)}

    @staticmethod
    def reserve(table: Any, keys: Mapping[str, Mapping[str, Any]]) -> bool:
        """Reserve jobs by their hashes with one statement; if one of them cannot be, reserve none and return False."""
        queue = _reservations(table)
        known = {"table_name": table.table_name, "status": "reserved", "host": platform.node(), "pid": os.getpid()}
        known |= {"connection_id": queue.connection.connection_id, "user": user_of_queue(queue)}
        try:
            queue.insert({**known, "key": job_key(table, key), "key_hash": each} for each, key in keys.items())
        except DuplicateError:
            return False
        return True

    @staticmethod
    def ignore(table: Any, key: Mapping[str, Any]) -> bool:
        """Put a waiting job into the queue as ignored; return False if it is there already."""
        return bool(_reservations(table).ignore(table.table_name, job_key(table, key)))

    @staticmethod
    def record_failure(table: Any, key: Mapping[str, Any], *, message: str, stack: str) -> None:
        """Turn a reservation into a failure."""
        _reservations(table).error(table.table_name, job_key(table, key), error_message=message, error_stack=stack)

    def end_reservation(self, lease: Lease) -> None:
        """Remove the reservation that belongs to a lease."""
        self.connection.query(
            f"DELETE FROM {_queue(lease.job_schema)} WHERE {_QUEUED} AND status = 'reserved'", args=lease.job
        )

    def poison(self, lease: Lease, message: str) -> None:
        """Turn the reservation that belongs to a lease into a failure."""
        self.connection.query(
            f"UPDATE {_queue(lease.job_schema)} SET status = 'error', error_message = %s "
            f"WHERE {_QUEUED} AND status = 'reserved'",
            args=(message[:ERROR_MESSAGE_LENGTH], *lease.job),
        )

    def queued(self, database: str) -> dict[str, dict[str, dict[str, Any]]]:
        """Return a schema's queue by table and hash, as fields of a job; without the tracebacks, which are long."""
        rows = self.connection.query(
            f"SELECT table_name, key_hash, {_selected(_QUEUE_COLUMNS)} FROM {_queue(database)}"
        ).fetchall()
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for table, job_hash, *rest in rows:
            found.setdefault(table, {})[job_hash] = _reservation(rest)
        return found

    def queued_like(self, database: str, prefix: str) -> list[tuple[str, str, str, bytes | None]]:
        """Return table, hash, state and packed key of the queued jobs whose hash begins with this."""
        rows = self.connection.query(
            f"SELECT table_name, key_hash, status, `key` FROM {_queue(database)} WHERE key_hash LIKE %s "
            "ORDER BY key_hash, table_name",
            args=(prefix + "%",),
        ).fetchall()
        return [(table, job_hash, STATES[status], key) for table, job_hash, status, key in rows]

    def reservation(self, database: str, job_table: str, job_hash: str) -> dict[str, Any] | None:
        """Return one job of a queue, as fields of a job, with the packed traceback; None if it is not there."""
        row = self.connection.query(
            f"SELECT {_selected(_QUEUE_COLUMNS)}, error_stack FROM {_queue(database)} WHERE {_QUEUED}",
            args=(job_table, job_hash),
        ).fetchone()
        return None if row is None else {**_reservation(row[:-1]), "stack": row[-1]}

    def failures(self, database: str) -> set[tuple[str, str]]:
        """Return table and hash of the failures in a queue."""
        rows = self.connection.query(f"SELECT table_name, key_hash FROM {_queue(database)} WHERE status = 'error'")
        return set(rows.fetchall())

    def lock_queued(
        self, database: str, job_table: str, hashes: Sequence[str]
    ) -> dict[str, tuple[str, float, str, int]]:
        """Lock the rows of jobs in a queue until the transaction ends; return status, age (s), host and process."""
        rows = self.connection.query(
            f"SELECT key_hash, status, {_QUEUE_AGE}, host, pid "
            f"FROM {_queue(database)} WHERE table_name = %s AND key_hash IN ({_places(hashes)}) FOR UPDATE",
            args=(job_table, *hashes),
        ).fetchall()
        return {job_hash: (status, float(age), host, int(pid)) for job_hash, status, age, host, pid in rows}

    def set_ignored(self, database: str, job_table: str, job_hash: str) -> None:
        """Mark a row of the queue as ignored."""
        self.connection.query(
            f"UPDATE {_queue(database)} SET status = 'ignore' WHERE {_QUEUED}", args=(job_table, job_hash)
        )

    def delete_queued(self, database: str, job_table: str, hashes: Sequence[str], *, status: str = "") -> None:
        """Take jobs out of the queue, so that they may be begun; with ``status`` only those that have it."""
        of_status = f"AND status = '{status}' " if status else ""
        self.connection.query(
            f"DELETE FROM {_queue(database)} WHERE table_name = %s {of_status}AND key_hash IN ({_places(hashes)})",
            args=(job_table, *hashes),
        )

    # --- cleaning -------------------------------------------------------------------------------------------------

    def count_old(self, seconds: float) -> dict[str, int]:
        """Return by table how many rows are older than this (s) and no longer needed."""
        counts = {}
        for table, condition in self._old():
            query = f"SELECT COUNT(*) FROM `{self.schema}`.`{table}` WHERE {condition}"
            counts[table] = int(self.connection.query(query, args=_arguments(condition, seconds)).fetchone()[0])
        return counts

    def delete_old(self, seconds: float) -> dict[str, int]:
        """Delete these rows; return how many by table."""
        counts = {}
        for table, condition in self._old():
            query = f"DELETE FROM `{self.schema}`.`{table}` WHERE {condition}"
            counts[table] = int(self.connection.query(query, args=_arguments(condition, seconds)).rowcount)
        return counts

    def _old(self) -> list[tuple[str, str]]:
        return [(table, text.format(schema=self.schema, cutoff=_CUTOFF)) for table, text in _OLD.items()]


def _reservations(table: Any) -> Any:
    """Return DataJoint's queue of the schema that a table is in."""
    return table.connection.schemas[table.database].jobs


def _queue(database: str) -> str:
    return f"`{database}`.`{QUEUE}`"


def _selected(columns: Mapping[str, str]) -> str:
    return ", ".join(columns.values())


def _places(values: Collection[Any]) -> str:
    return ", ".join(["%s"] * len(values))


def _arguments(condition: str, seconds: float) -> tuple[float, ...]:
    return (seconds,) * condition.count("%s")


def _attempt(row: Sequence[Any]) -> dict[str, Any]:
    found = dict(zip(_ATTEMPT_COLUMNS, row, strict=True))
    return {**found, "elapsed": None if found["elapsed"] is None else float(found["elapsed"])}


def _reservation(row: Sequence[Any]) -> dict[str, Any]:
    found = dict(zip(_QUEUE_COLUMNS, row, strict=True))
    return {**found, "pid": int(found["pid"]), "age": float(found["age"])}
