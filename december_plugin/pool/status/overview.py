"""Everything that can be said about a lab's jobs, workers and pools, read in few queries and without writing.

An account that may only read can do this: neither DataJoint's ``~jobs`` nor the tables of the pool are made where they
are missing. All ages are on the database's clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from datajoint.hash import key_hash

from december_plugin.pool.jobs.leases import AGE, SHORT
from december_plugin.pool.jobs.waiting import describe_jobs
from december_plugin.pool.status.failures import Reason, grouped

POOL_TABLES = ("pool", "pool_worker", "pool_job")
MANY = 100  # jobs of a table, from which on all missing keys are fetched instead of looking for each
DAY = 86400.0
STATES = {"reserved": "running", "error": "failed", "ignore": "ignored"}  # of ~jobs, in our words


@dataclass(frozen=True)
class Worker:
    """A worker that has shown a sign of life within a day; times are in seconds."""

    worker_id: str
    pool_id: str
    host: str
    pid: int
    gpu: str
    slurm_job: str
    state: str
    detail: str
    lease: float
    heartbeat_age: float
    job_table: str
    job_hash: str
    epoch: int | None
    n_epochs: int | None
    score: float | None
    seconds_left: float | None
    n_done: int
    n_failed: int
    busy_seconds: float
    version: str

    @property
    def has_ended(self) -> bool:
        """Whether it said goodbye, or was found dead."""
        return self.state in ("ended", "dead")

    @property
    def alive(self) -> bool:
        """Whether its heartbeat is younger than its lease."""
        return not self.has_ended and self.heartbeat_age <= self.lease

    @property
    def overdue(self) -> bool:
        """Whether it should have shown a heartbeat and has not."""
        return not self.has_ended and not self.alive


@dataclass(frozen=True)
class QueuedJob:
    """A job with a row in ``~jobs``: running, failed, poisoned or ignored.

    Attributes
    ----------
    table, job_hash, key
        Which job: the table's name, DataJoint's hash, the primary key.
    state
        ``running``, ``failed``, ``poisoned`` or ``ignored``.
    host, pid, user
        Who wrote the row.
    age
        Age of the row (s).
    reason
        Message of a failure.
    holder
        Id of the worker that has the lease; empty for none, as of a plain ``populate()``.
    worker
        The same, if it has shown a sign of life within a day.
    n_starts, n_deaths
        Attempts, and those that ended with a dead worker; 0 if no worker has begun it.
    elapsed
        Time since the last attempt began (s).
    """

    table: str
    job_hash: str
    key: dict[str, Any]
    state: str
    host: str
    pid: int
    user: str
    age: float
    reason: str = ""
    holder: str = ""
    worker: Worker | None = None
    n_starts: int = 0
    n_deaths: int = 0
    elapsed: float | None = None

    @property
    def id(self) -> str:
        """Short name."""
        return self.job_hash[:SHORT]

    @property
    def is_alive(self) -> bool:
        """Whether a live worker computes it."""
        return self.worker is not None and self.worker.alive


@dataclass(frozen=True)
class TableCounts:
    """Numbers of entries of one table; ``waiting`` could be begun now."""

    table: str
    done: int
    running: int
    waiting: int
    failed: int
    poisoned: int
    ignored: int

    @property
    def total(self) -> int:
        """All entries that are done or could be computed now."""
        return self.done + self.running + self.waiting + self.failed + self.poisoned + self.ignored


@dataclass(frozen=True)
class PoolRow:
    """A pool that has not ended, or has within a day; ages in seconds."""

    pool_id: str
    kind: str
    host: str
    user: str
    slurm_job: str
    n_workers: int
    stop_requested: bool
    age: float
    ended_age: float | None


@dataclass(frozen=True)
class Throughput:
    """Jobs that workers have done, by table, and how long the rest takes.

    Attributes
    ----------
    last_hour, last_day
        Jobs done, by table.
    seconds_per_job
        Mean duration of those of the last day, or of all if there were none, by table (s).
    seconds_left
        Estimate for what can be begun now, with the workers that are alive, apart from ``not_estimated`` (s); None if
        no worker is alive, or nothing can be estimated.
    not_estimated
        Jobs that can be begun now and of whose table none has run yet, by table: ``seconds_left`` is without them.
    """

    last_hour: dict[str, int] = field(default_factory=dict)
    last_day: dict[str, int] = field(default_factory=dict)
    seconds_per_job: dict[str, float] = field(default_factory=dict)
    seconds_left: float | None = None
    not_estimated: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Overview:
    """The state of a lab at one moment; what it holds is said by its parts."""

    schema: str
    time: datetime
    planned: int
    tables: list[TableCounts]
    jobs: list[QueuedJob]
    reasons: list[Reason]
    workers: list[Worker]
    pools: list[PoolRow]
    throughput: Throughput
    has_pool_tables: bool
    describe: Callable[[str, Mapping[str, Any]], str]

    def jobs_in(self, *states: str) -> list[QueuedJob]:
        """Return the jobs in these states."""
        return [job for job in self.jobs if job.state in states]

    @property
    def some_failed(self) -> bool:
        """Whether jobs have failed or are poisoned."""
        return any(table.failed or table.poisoned for table in self.tables)


@contextmanager
def snapshot(connection: Any) -> Iterator[None]:
    """Let all queries of a block see the same moment, so that the numbers fit together."""
    if connection.in_transaction:
        yield
        return
    connection.start_transaction()
    try:
        yield
    finally:
        if connection.in_transaction:
            connection.cancel_transaction()


def read_overview(tables: Any) -> Overview:
    """Read the state of a lab.

    Parameters
    ----------
    tables
        What :func:`december_plugin.schemas.december_tables` returns.
    """
    schema, connection = tables.schema.database, tables.schema.connection
    computed = [table() for table in tables.computed]
    describe = describe_jobs(tables)
    existing = existing_tables(connection, schema, {table.database for table in computed})
    has_pool_tables = all((schema, name) in existing for name in POOL_TABLES)
    with snapshot(connection):
        (now,) = connection.query("SELECT UTC_TIMESTAMP(6)").fetchone()
        workers = _workers(connection, schema) if has_pool_tables else []
        book = _book(connection, schema) if has_pool_tables else {}
        queue = {
            database: _queue(connection, database) if (database, "~jobs") in existing else {}
            for database in {table.database for table in computed}
        }
        by_id = {worker.worker_id: worker for worker in workers}
        counts, jobs = [], []
        for table in computed:
            counted, found = _table(table, queue[table.database].get(table.table_name, {}), book, by_id)
            counts.append(counted)
            jobs += found
        planned = _count(connection, tables.TrainingPlan().full_table_name)
        pools = _pools(connection, schema) if has_pool_tables else []
        done = _done(connection, schema) if has_pool_tables else []
    names = {table.table_name: type(table).__name__ for table in computed}
    return Overview(
        schema=schema,
        time=now,
        planned=planned,
        tables=counts,
        jobs=jobs,
        reasons=grouped(
            (job.table, job.job_hash, job.reason, job.state == "poisoned")
            for job in jobs
            if job.state in ("failed", "poisoned")
        ),
        workers=workers,
        pools=pools,
        throughput=_throughput(done, names, counts, jobs, workers),
        has_pool_tables=has_pool_tables,
        describe=describe,
    )


def existing_tables(connection: Any, schema: str, databases: set[str]) -> set[tuple[str, str]]:
    """Return which of the pool's tables, and of the ``~jobs`` of some schemas, exist: (schema, table)."""
    wanted = [(schema, name) for name in POOL_TABLES] + [(database, "~jobs") for database in databases]
    condition = " OR ".join(["(table_schema = %s AND table_name = %s)"] * len(wanted))
    rows = connection.query(
        f"SELECT table_schema, table_name FROM information_schema.tables WHERE {condition}",
        args=[value for pair in wanted for value in pair],
    ).fetchall()
    return {(str(database), str(name)) for database, name in rows}


def missing_query(table: Any) -> tuple[str, list[str]]:
    """Return the SQL of the keys that could be computed now, and the names of its columns."""
    missing = table.key_source.proj() - table.proj()
    return missing.make_sql(), list(missing.heading.names)


def hashed(table: Any, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, dict[str, Any]]:
    """Return keys by DataJoint's hash of them."""
    keys = (dict(zip(names, row, strict=True)) for row in rows)
    return {key_hash(table._job_key(key)): key for key in keys}


def _count(connection: Any, source: str) -> int:
    return int(connection.query(f"SELECT COUNT(*) FROM {source}").fetchone()[0])


def _queue(connection: Any, database: str) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Return the rows of ``~jobs`` by table and hash; without the tracebacks, which are long."""
    rows = connection.query(
        "SELECT table_name, key_hash, status, error_message, host, pid, user, "
        f"TIMESTAMPDIFF(SECOND, `timestamp`, CURRENT_TIMESTAMP), `key` FROM `{database}`.`~jobs`"
    ).fetchall()
    found: dict[str, dict[str, tuple[Any, ...]]] = {}
    for table, job_hash, *rest in rows:
        found.setdefault(table, {})[job_hash] = tuple(rest)
    return found


def _book(connection: Any, schema: str) -> dict[tuple[str, str], tuple[Any, ...]]:
    """Return what ``PoolJob`` has on jobs that are held, failed or poisoned."""
    rows = connection.query(
        f"SELECT job_table, job_hash, worker_id, job_state, n_starts, n_deaths, {AGE.format('begun')} "
        f"FROM `{schema}`.`pool_job` WHERE worker_id <> '' OR job_state IN ('failed', 'poisoned')"
    ).fetchall()
    return {(table, job_hash): tuple(rest) for table, job_hash, *rest in rows}


def _workers(connection: Any, schema: str) -> list[Worker]:
    age = AGE.format("heartbeat")
    rows = connection.query(
        "SELECT worker_id, pool_id, worker_host, worker_pid, worker_gpu, worker_slurm_job, worker_state, "
        f"worker_detail, lease, {age}, job_table, job_hash, job_epoch, job_n_epochs, job_score, job_seconds_left, "
        f"n_done, n_failed, busy_seconds, worker_version FROM `{schema}`.`pool_worker` "
        "WHERE heartbeat > UTC_TIMESTAMP(6) - INTERVAL 1 DAY ORDER BY worker_host, worker_gpu, worker_started"
    ).fetchall()
    names = [each.name for each in fields(Worker)]
    return [Worker(**{**dict(zip(names, row, strict=True)), "heartbeat_age": float(row[9])}) for row in rows]


def _pools(connection: Any, schema: str) -> list[PoolRow]:
    rows = connection.query(
        f"SELECT pool_id, pool_kind, pool_host, pool_user, slurm_job, n_workers, stop_requested, "
        f"{AGE.format('pool_started')}, {AGE.format('pool_ended')} FROM `{schema}`.`pool` "
        "WHERE pool_ended IS NULL OR pool_ended > UTC_TIMESTAMP(6) - INTERVAL 1 DAY ORDER BY pool_started"
    ).fetchall()
    return [
        PoolRow(
            **dict(zip(("pool_id", "kind", "host", "user", "slurm_job", "n_workers"), row, strict=False)),
            stop_requested=bool(row[6]),
            age=float(row[7]),
            ended_age=None if row[8] is None else float(row[8]),
        )
        for row in rows
    ]


def _done(connection: Any, schema: str) -> list[tuple[str, int, int, float]]:
    """Return tables with the jobs done in the last hour and day, and the seconds per job (of the day, or of all)."""
    duration, is_recent = "TIMESTAMPDIFF(MICROSECOND, begun, ended) / 1e6", "ended > UTC_TIMESTAMP(6) - INTERVAL 1 DAY"
    rows = connection.query(
        f"SELECT job_table, SUM(ended > UTC_TIMESTAMP(6) - INTERVAL 1 HOUR), SUM({is_recent}), "
        f"COALESCE(AVG(IF({is_recent}, {duration}, NULL)), AVG({duration})) "
        f"FROM `{schema}`.`pool_job` WHERE job_state = 'done' AND ended IS NOT NULL GROUP BY job_table"
    ).fetchall()
    return [(table, int(hour), int(day), float(mean)) for table, hour, day, mean in rows]


def _table(
    table: Any, queue: Mapping[str, tuple[Any, ...]], book: Mapping[Any, tuple[Any, ...]], workers: Mapping[str, Worker]
) -> tuple[TableCounts, list[QueuedJob]]:
    """Count one table; a job in ``~jobs`` that is done, or not wanted any more, does not count."""
    name = type(table).__name__
    done = _count(table.connection, table.full_table_name)
    n_missing, keys = _missing(table, queue, done)
    jobs = []
    for job_hash, key in keys.items():
        status, reason, host, pid, user, age, _ = queue[job_hash]
        holder, job_state, n_starts, n_deaths, elapsed = book.get((table.table_name, job_hash), ("", "", 0, 0, None))
        is_poisoned = status == "error" and job_state == "poisoned"
        jobs.append(
            QueuedJob(
                table=name,
                job_hash=job_hash,
                key=key,
                state="poisoned" if is_poisoned else STATES[status],
                host=host,
                pid=int(pid),
                user=user,
                age=float(age),
                reason=reason,
                holder=holder if status == "reserved" else "",
                worker=workers.get(holder) if status == "reserved" else None,
                n_starts=int(n_starts),
                n_deaths=int(n_deaths),
                elapsed=None if elapsed is None else float(elapsed),
            )
        )
    n = {state: sum(job.state == state for job in jobs) for state in ("running", "failed", "poisoned", "ignored")}
    return TableCounts(table=name, done=done, waiting=n_missing - len(jobs), **n), jobs


def _missing(table: Any, queue: Mapping[str, tuple[Any, ...]], done: int) -> tuple[int, dict[str, dict[str, Any]]]:
    """Return how many entries could be computed or are in work, and the keys of those in ``queue``, by hash."""
    connection = table.connection
    sql, names = missing_query(table)
    if len(queue) > MANY:
        missing = hashed(table, names, connection.query(sql).fetchall())
        return len(missing), {job_hash: missing[job_hash] for job_hash in queue if job_hash in missing}
    n_missing = _count_missing(table, sql, done)
    if not queue or not n_missing:
        return n_missing, {}
    from datajoint import blob

    unpacked = [blob.unpack(row[-1]) for row in queue.values() if row[-1] is not None]
    keys = [key for key in unpacked if set(names) <= set(key)]  # not those of another layout of the table
    if not keys:
        return n_missing, {}
    condition = " AND ".join(f"`{name}` = %s" for name in names)
    found = connection.query(
        f"SELECT * FROM ({sql}) missing WHERE " + " OR ".join([f"({condition})"] * len(keys)),
        args=[_plain(key[name]) for key in keys for name in names],
    ).fetchall()
    by_hash = hashed(table, names, found)
    return n_missing, {job_hash: by_hash[job_hash] for job_hash in queue if job_hash in by_hash}


def _count_missing(table: Any, sql: str, done: int) -> int:
    if "seed_a" in table.primary_key and "seed_b" in table.primary_key:
        # All pairs within a configuration: counted from its number of seeds ten times faster than by joining them.
        assignments = table.cluster_assignment_table()
        shared = ", ".join(f"`{name}`" for name in assignments.primary_key if name != "seed")
        (pairs,) = table.connection.query(
            f"SELECT SUM(n * (n - 1) DIV 2) FROM (SELECT COUNT(*) AS n FROM {assignments.full_table_name} "
            f"GROUP BY {shared}) configurations"
        ).fetchone()
        return int(pairs or 0) - done
    return _count(table.connection, f"({sql}) missing")


def _plain(value: Any) -> Any:
    """Return an integer as such: keys may hold subclasses that know how they are hashed."""
    return int(value) if isinstance(value, int) else value


def _throughput(
    done: Sequence[tuple[str, int, int, float]],
    names: Mapping[str, str],
    counts: Sequence[TableCounts],
    jobs: Sequence[QueuedJob],
    workers: Sequence[Worker],
) -> Throughput:
    known = [(names[table], hour, day, mean) for table, hour, day, mean in done if table in names]
    seconds = {table: mean for table, _, _, mean in known}
    seconds_left, not_estimated = _time_left(seconds, counts, [job for job in jobs if job.is_alive], workers)
    return Throughput(
        last_hour={table: hour for table, hour, day, _ in known if day},
        last_day={table: day for table, _, day, _ in known if day},
        seconds_per_job=seconds,
        seconds_left=seconds_left,
        not_estimated=not_estimated,
    )


def _time_left(
    seconds: Mapping[str, float],
    counts: Sequence[TableCounts],
    running: Sequence[QueuedJob],
    workers: Sequence[Worker],
) -> tuple[float | None, dict[str, int]]:
    """Return how long the work that can be begun now takes the workers that are alive, and what is not in it."""
    # A training that nobody has finished yet lasts as long as those in work will.
    expected = dict(seconds)
    for job in running:
        left = job.worker.seconds_left if job.worker else None
        if job.table not in seconds and left is not None and job.elapsed is not None:
            expected[job.table] = max(expected.get(job.table, 0.0), job.elapsed + left)
    waiting = {table.table: table.waiting for table in counts if table.waiting}
    unknown = {table: number for table, number in waiting.items() if table not in expected}
    work = [number * expected[table] for table, number in waiting.items() if table in expected]
    for job in running:
        left = job.worker.seconds_left if job.worker else None
        if left is not None:
            work.append(left)
        elif job.table in expected:
            work.append(max(0.0, expected[job.table] - (job.elapsed or 0.0)))
        else:
            unknown[job.table] = unknown.get(job.table, 0) + 1
    n_workers = sum(worker.alive and worker.state != "draining" for worker in workers)
    return sum(work) / n_workers if n_workers and work else None, unknown
